// Contracts on channels, put there by the calls that `peer lifecycle chaincode` makes: package, install, approve for each member, commit.
// The contracts are stock ones for Node in contracts/, and run as services. A folder is one package and one process; any number of
// definitions, with names, policies and collections of their own, may use it.

import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { eventually } from './expect.mjs';
import { bytes, common, make, peer, sha256 } from './wire.mjs';

const here = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { lifecycle } = peer;

// Policies: anyOf('Org1MSP.peer', 'Org2MSP.member'), allOf(...), outOf(2, ...); they nest.
export const anyOf = (...of) => outOf(1, ...of);
export const allOf = (...of) => outOf(of.length, ...of);
export const outOf = (n, ...of) => ({ n, of });

// envelopeOf is the SignaturePolicyEnvelope of a policy.
export function envelopeOf(policy) {
    const principals = [];
    const rule = (p) => {
        if (typeof p !== 'string') return make(common.SignaturePolicy, { nOutOf: make(common.SignaturePolicy.NOutOf, { n: p.n, rules: p.of.map(rule) }) });
        let index = principals.indexOf(p);
        if (index < 0) index = principals.push(p) - 1;
        const message = new common.SignaturePolicy();
        message.setSignedBy(index);
        return message;
    };
    const made = rule(policy);
    const identities = principals.map((p) => {
        const [, mspIdentifier, role] = /^(.*)\.(\w+)$/.exec(p);
        return make(common.MSPPrincipal, {
            principalClassification: common.MSPPrincipal.Classification.ROLE,
            principal: bytes(make(common.MSPRole, { mspIdentifier, role: common.MSPRole.MSPRoleType[role.toUpperCase()] })),
        });
    });
    return make(common.SignaturePolicyEnvelope, { version: 0, rule: made, identities });
}

// validationParameter is an ApplicationPolicy, as definitions and keys of the state carry it. A policy given as text is the path of a
// channel policy.
export function validationParameter(policy) {
    return bytes(typeof policy === 'string'
        ? make(peer.ApplicationPolicy, { channelConfigPolicyReference: policy })
        : make(peer.ApplicationPolicy, { signaturePolicy: envelopeOf(policy) }));
}

// collections makes a CollectionConfigPackage of a list as collections_config.json has it, with policies by anyOf and the like:
// [{ name: 'deals', policy: anyOf('Org1MSP.member'), requiredPeerCount: 0, maxPeerCount: 1, blockToLive, memberOnlyRead, memberOnlyWrite,
// endorsementPolicy }].
export function collections(list) {
    return make(peer.CollectionConfigPackage, {
        config: list.map(({ policy, endorsementPolicy, requiredPeerCount, maxPeerCount, ...plain }) => make(peer.CollectionConfig, {
            staticCollectionConfig: make(peer.StaticCollectionConfig, {
                ...plain, requiredPeerCount, maximumPeerCount: maxPeerCount,
                memberOrgsPolicy: policy && make(peer.CollectionPolicyConfig, { signaturePolicy: envelopeOf(policy) }),
                endorsementPolicy: endorsementPolicy && peer.ApplicationPolicy.deserializeBinary(validationParameter(endorsementPolicy)),
            }),
        })),
    });
}

// archive is a tar.gz of files by name.
export function archive(files) {
    const parts = [];
    for (const [name, value] of Object.entries(files)) {
        const content = bytes(value);
        const head = Buffer.alloc(512);
        const put = (at, text) => head.write(text, at, 'latin1');
        const octal = (at, length, n) => put(at, n.toString(8).padStart(length - 1, '0'));
        put(0, name);
        octal(100, 8, 0o644); octal(108, 8, 0); octal(116, 8, 0); octal(124, 12, content.length); octal(136, 12, 0);
        put(156, '0'); put(257, 'ustar\u000000');
        put(148, ' '.repeat(8));
        octal(148, 7, head.reduce((sum, b) => sum + b, 0));
        put(154, '\0 ');
        parts.push(head, content, Buffer.alloc((512 - content.length % 512) % 512));
    }
    return gzipSync(Buffer.concat([...parts, Buffer.alloc(1024)]));
}

// packageOf is an installable package of a contract that runs as a service, and its id.
export function packageOf(label, address, files = {}, dialTimeout = '10s') {
    const code = archive({ 'connection.json': JSON.stringify({ address, dial_timeout: dialTimeout, tls_required: false }), ...files });
    const raw = archive({ 'metadata.json': JSON.stringify({ type: 'ccaas', label }), 'code.tar.gz': code });
    return { raw, label, id: `${label}:${sha256(raw).toString('hex')}` };
}

export class Contracts {
    #net;
    #running = new Map();
    #deployed = new Map();

    constructor(network) { this.#net = network; }

    // deploy makes a definition of the contract in contracts/FOLDER the channel's, or upgrades it. options: name (default: the folder's),
    // channel, policy (anyOf(...) or a channel policy's path; default: the channel's own), collections (as the function above takes
    // them), initRequired, version, sequence, members (who install and approve; default: all of the channel's).
    deploy(folder, options = {}) {
        const key = JSON.stringify([folder, options]);
        if (!this.#deployed.has(key)) this.#deployed.set(key, this.#deploy(folder, options));
        return this.#deployed.get(key);
    }

    async #deploy(folder, { name = folder, channel = this.#net.channel, version = '1.0', sequence = 1, ...options }) {
        const members = options.members ?? Object.keys(this.#net.members);
        const { id } = await this.install(folder, members);
        const definition = this.definition({ name, version, sequence, ...options });
        await Promise.all(members.map((m) => this.approve(m, definition, { channel, packageId: id })));
        await this.commit(members, definition, { channel });
        return { name, id };
    }

    // definition gives the fields that approvals, commits and readiness checks share, as the protobuf setters name them.
    definition({ name, version = '1.0', sequence = 1, policy, collections: list, initRequired = false }) {
        return {
            name, version, sequence, initRequired, endorsementPlugin: 'escc', validationPlugin: 'vscc',
            validationParameter: validationParameter(policy ?? '/Channel/Application/Endorsement'), collections: collections(list ?? []),
        };
    }

    // install runs the contract in a folder, if it does not run yet, and installs its package on members' peers.
    async install(folder, members = Object.keys(this.#net.members)) {
        if (!this.#running.has(folder)) this.#running.set(folder, this.#run(folder));
        const running = await this.#running.get(folder);
        await Promise.all(members.map((m) => running.on[m] ??= this.installPackage(m, running.raw)));
        return running;
    }

    // installPackage installs bytes as a package on a member's peer.
    async installPackage(member, raw) {
        const arg = make(lifecycle.InstallChaincodeArgs, { chaincodeInstallPackage: raw });
        const answer = (await this.local(member, 'InstallChaincode', arg)).getResponse();
        if (answer.getStatus() !== 200) throw new Error(`install on ${member}: ${answer.getMessage()}`);
        return lifecycle.InstallChaincodeResult.deserializeBinary(answer.getPayload_asU8()).getPackageId();
    }

    // local calls _lifecycle on one peer, without a channel, as its administrator; the answer is a ProposalResponse.
    local(member, method, argument, options = {}) {
        return this.#net.process(member, { contract: '_lifecycle', args: [method, bytes(argument)], channel: '', user: 'Admin', ...options });
    }

    // query calls _lifecycle on a channel, at one peer, as its administrator.
    query(member, method, argument, options = {}) {
        return this.#net.process(member, { contract: '_lifecycle', args: [method, bytes(argument)], user: 'Admin', ...options });
    }

    // approve approves a definition for a member's organization; packageId '' says that its peers do not run it.
    async approve(member, definition, { channel, packageId = '' } = {}) {
        const source = packageId
            ? make(lifecycle.ChaincodeSource, { localPackage: make(lifecycle.ChaincodeSource.Local, { packageId }) })
            : make(lifecycle.ChaincodeSource, { unavailable: new lifecycle.ChaincodeSource.Unavailable() });
        const arg = make(lifecycle.ApproveChaincodeDefinitionForMyOrgArgs, { ...definition, source });
        return this.#submit(member, 'ApproveChaincodeDefinitionForMyOrg', arg, [member], channel);
    }

    // readiness says which organizations have approved a definition as a member's peer knows it, by MSP id.
    async readiness(member, definition, { channel = this.#net.channel } = {}) {
        const answer = await this.query(member, 'CheckCommitReadiness', make(lifecycle.CheckCommitReadinessArgs, definition), { channel });
        if (answer.getResponse().getStatus() !== 200) throw new Error(answer.getResponse().getMessage());
        const result = lifecycle.CheckCommitReadinessResult.deserializeBinary(answer.getResponse().getPayload_asU8());
        return Object.fromEntries(result.getApprovalsMap().toObject());
    }

    // commit makes a definition the channel's, endorsed by members that have approved it, and waits until their peers have it.
    async commit(members, definition, { channel = this.#net.channel } = {}) {
        // Each peer endorses by what it has committed itself.
        await Promise.all(members.map((m) => eventually(async () => {
            const approved = await this.readiness(m, definition, { channel });
            return members.every((other) => approved[this.#net.member(other).mspId]);
        })));
        await this.#submit(members[0], 'CommitChaincodeDefinition', make(lifecycle.CommitChaincodeDefinitionArgs, definition), members, channel);
        const question = make(lifecycle.QueryChaincodeDefinitionArgs, { name: definition.name });
        await Promise.all(members.map((m) => eventually(async () => {
            const answer = (await this.query(m, 'QueryChaincodeDefinition', question, { channel })).getResponse();
            return answer.getStatus() === 200
                && lifecycle.QueryChaincodeDefinitionResult.deserializeBinary(answer.getPayload_asU8()).getSequence() >= definition.sequence;
        })));
    }

    #submit(member, method, argument, endorsers, channel) {
        return this.#net.contract(member, '_lifecycle', { channel, user: 'Admin' }).submit(method, {
            arguments: [bytes(argument)], endorsingOrganizations: endorsers.map((m) => this.#net.member(m).mspId),
        });
    }

    async #run(folder) {
        const source = path.join(here, 'contracts', folder);
        const address = `127.0.0.1:${await freePort()}`;
        const files = {};
        for (const entry of walk(path.join(source, 'META-INF'))) {
            files[path.relative(source, entry)] = fs.readFileSync(entry);
        }
        // How long peers wait for a process that is away: a package.json may say in its config.
        const { config = {} } = JSON.parse(fs.readFileSync(path.join(source, 'package.json')));
        const made = packageOf(`${folder}_1.0`, address, files, config.dialTimeout);
        const running = { ...made, folder, address, on: {} };
        await this.#start(running);
        return running;
    }

    // restart runs a contract's process again that has ended.
    async restart(folder) {
        await this.#start(await this.#running.get(folder));
    }

    async #start(running) {
        const { folder, address, id } = running;
        const log = fs.openSync(path.join(this.#net.dir, `contract-${folder}.log`), 'a');
        const child = spawn(process.execPath, [
            path.join(here, 'node_modules', 'fabric-shim', 'cli.js'), 'server',
            '--chaincode-address', address, '--chaincode-id', id, '--module-path', path.join(here, 'contracts', folder),
        ], { stdio: ['ignore', log, log], env: { ...process.env, CORE_CHAINCODE_LOGGING_SHIM: 'error' } });
        fs.closeSync(log);
        running.child = child;
        this.#net.onClose(() => child.kill('SIGKILL'));
        await eventually(() => {
            if (child.exitCode !== null) throw new Error(`the contract in ${folder} ended: see contract-${folder}.log`);
            return listens(address);
        }, 30);
    }
}

function walk(folder) {
    if (!fs.existsSync(folder)) return [];
    return fs.readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
        const name = path.join(folder, e.name);
        return e.isDirectory() ? walk(name) : [name];
    });
}

function freePort() {
    return new Promise((resolve, reject) => {
        const server = net.createServer().once('error', reject).listen(0, '127.0.0.1', () => {
            const { port } = server.address();
            server.close(() => resolve(port));
        });
    });
}

function listens(address) {
    const [host, port] = address.split(':');
    return new Promise((resolve) => {
        const socket = net.connect({ host, port }, () => { socket.destroy(); resolve(true); });
        socket.once('error', () => resolve(false));
    });
}
