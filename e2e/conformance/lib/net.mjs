// The network under test as its users see it: who they are, connections of the stock clients and of raw gRPC, and the contracts that
// cases want. A feature's cases get one Net; what it opens it closes at the end.

import { execFile } from 'node:child_process';
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import FabricCAServices from 'fabric-ca-client';
import { User } from 'fabric-common';
import fabricNetwork from 'fabric-network';
import * as gatewayClient from '@hyperledger/fabric-gateway';
import { Contracts } from './contracts.mjs';
import { eventually } from './expect.mjs';
import * as wire from './wire.mjs';

const { grpc, make, msp, orderer, peer, discovery, gateway } = wire;

const SERVICES = {
    endorser: peer.EndorserClient, deliver: peer.DeliverClient, snapshot: peer.SnapshotClient,
    gateway: gateway.GatewayClient, discovery: discovery.DiscoveryClient, broadcast: orderer.AtomicBroadcastClient,
};

export class Net {
    #closers = [];
    #gateways = new Map();
    #connections = new Map();

    // setup is what conformance_test.go says of the network: folders, addresses, bad identities.
    constructor(setup) {
        this.setup = setup;
        this.channel = setup.channel;
        this.dir = setup.dir;
        // members by name (org1, org2, org3): mspId, address of the peer, users.
        this.members = Object.fromEntries(setup.members.map((m) => [m.name, m]));
        this.orderers = setup.orderers;
        // Identities that nobody must accept: expired, stranger (of a CA nobody knows), unknownMember.
        this.refused = Object.fromEntries(Object.entries(setup.refused).map(([name, files]) => [name, identityOf(files)]));
        this.contracts = new Contracts(this);
    }

    member(name) {
        const member = this.members[name];
        if (!member) throw new Error(`there is no member ${name}`);
        return member;
    }

    get mspIds() { return this.setup.members.map((m) => m.mspId); }

    // user is a member's identity: 'User1' or 'Admin'; of the member 'orderer' there is 'Admin'. It has mspId, credentials (PEM), key
    // (a KeyObject), creator (bytes as in headers) and sign (bytes => signature).
    user(member, name = 'User1') {
        const [kind, domain, mspId] = member === 'orderer'
            ? ['ordererOrganizations', 'orderer.example.com', 'OrdererMSP']
            : ['peerOrganizations', this.member(member).domain, this.member(member).mspId];
        const folder = path.join(this.dir, 'crypto', kind, domain, 'users', `${name}@${domain}`);
        const only = (dir) => path.join(folder, 'msp', dir, fs.readdirSync(path.join(folder, 'msp', dir))[0]);
        return Object.assign(identityOf({ mspId, certificate: only('signcerts'), key: only('keystore') }), { tls: path.join(folder, 'tls') });
    }

    // ca is a stock fabric-ca-client of a member's certificate authority, and admin its registrar.
    async ca(member) {
        const { ca, mspId } = this.member(member);
        const suite = FabricCAServices.newCryptoSuite();
        suite.setCryptoKeyStore(FabricCAServices.newCryptoKeyStore());
        const service = new FabricCAServices(`https://${ca.address}`, { trustedRoots: [fs.readFileSync(ca.tlsRoot, 'utf8')], verify: true }, ca.name, suite);
        const userOf = async (id, { key, certificate }) => {
            const user = new User(id);
            user.setCryptoSuite(suite);
            await user.setEnrollment(key, certificate, mspId, true);
            return user;
        };
        const admin = await userOf(ca.admin, await service.enroll({ enrollmentID: ca.admin, enrollmentSecret: ca.secret }));
        return { service, admin, userOf, mspId };
    }

    // enroll makes a new user at a member's certificate authority: enroll('org1', { attributes: { role: 'auditor' } }). What comes back
    // is as from user.
    async enroll(member, { id = `user-${crypto.randomUUID()}`, attributes = {}, role = 'client' } = {}) {
        const { service, admin, mspId } = await this.ca(member);
        const attrs = Object.entries(attributes).map(([name, value]) => ({ name, value, ecert: true }));
        const secret = await service.register({ enrollmentID: id, affiliation: '', role, attrs }, admin);
        const { key, certificate } = await service.enroll({ enrollmentID: id, enrollmentSecret: secret });
        return identityFrom(mspId, certificate, key.toBytes());
    }

    // gateway is a stock @hyperledger/fabric-gateway connection through a member's peer. options: user, identity (of anybody), address
    // (of another server), offline (without a signer), grpc (channel options), seconds (deadline of each call), and those of connect().
    gateway(member, options = {}) {
        const key = `${member} ${options.user ?? ''}`;
        const plain = Object.keys(options).every((name) => name === 'user');
        if (plain && this.#gateways.has(key)) return this.#gateways.get(key);
        const { user, identity = this.user(member, user), address = this.member(member).address, offline, seconds = 20, grpc: channel, ...more } = options;
        const client = new grpc.Client(address, this.credentials(member), channel ?? {});
        const deadline = () => ({ deadline: Date.now() + 1000 * seconds });
        const connection = gatewayClient.connect({
            client, identity: { mspId: identity.mspId, credentials: identity.credentials },
            ...(offline ? {} : { signer: identity.signDigest }), hash: gatewayClient.hash.sha256,
            evaluateOptions: deadline, endorseOptions: deadline, submitOptions: deadline, commitStatusOptions: deadline, ...more,
        });
        this.#closers.push(() => { connection.close(); client.close(); });
        if (plain) this.#gateways.set(key, connection);
        return connection;
    }

    // contract is a contract through a member's gateway; options as of gateway, and channel.
    contract(member, name, { channel = this.channel, ...options } = {}) {
        return this.gateway(member, options).getNetwork(channel).getContract(name);
    }

    // legacy is a channel of the older fabric-network, with a member's connection profile or another. options: user, profile, channel,
    // and those of Gateway.connect.
    async legacy(member, { user, identity = this.user(member, user), profile, channel = this.channel, ...options } = {}) {
        const wallet = await fabricNetwork.Wallets.newInMemoryWallet();
        const credentials = { certificate: identity.credentials.toString(), privateKey: identity.key.export({ type: 'pkcs8', format: 'pem' }) };
        await wallet.put('user', { type: 'X.509', mspId: identity.mspId, credentials });
        const connection = new fabricNetwork.Gateway();
        this.#closers.push(() => connection.disconnect());
        await connection.connect(profile ?? JSON.parse(fs.readFileSync(this.member(member).profile, 'utf8')), {
            wallet, identity: 'user', discovery: { enabled: true, asLocalhost: false }, ...options,
        });
        return connection.getNetwork(channel);
    }

    // credentials are the TLS roots of a member's servers, or of the orderers'.
    credentials(member) {
        return grpc.credentials.createSsl(fs.readFileSync(member === 'orderer' ? this.orderers[0].tlsRoot : this.member(member).tlsRoot));
    }

    // stub is a raw gRPC client: stub('endorser', 'org1'), stub('deliver', 'org2'), 'gateway', 'discovery', 'snapshot'; of the orderer
    // stub('broadcast', 'orderer').
    stub(service, member = 'orderer') {
        const key = `${service} ${member}`;
        if (!this.#connections.has(key)) {
            const address = member === 'orderer' ? this.orderers[0].address : this.member(member).address;
            const client = new SERVICES[service](address, this.credentials(member), { 'grpc.max_receive_message_length': -1 });
            this.#closers.push(() => client.close());
            this.#connections.set(key, client);
        }
        return this.#connections.get(key);
    }

    // process sends a proposal to a member's peer as `peer chaincode query` does; the answer is a ProposalResponse. options as of
    // wire.propose, without identity: the member's user.
    async process(member, options) {
        const { signed } = await wire.propose({ identity: this.user(member, options.user), channel: this.channel, ...options });
        return wire.unary(this.stub('endorser', member), 'processProposal', signed);
    }

    // endorse has several members' peers endorse one proposal, as `peer chaincode invoke` does, and gives { proposed, responses }.
    async endorse(members, options) {
        const proposed = await wire.propose({ identity: this.user(members[0], options.user), channel: this.channel, ...options });
        const responses = await Promise.all(members.map((m) => wire.unary(this.stub('endorser', m), 'processProposal', proposed.signed)));
        return { proposed, responses };
    }

    // broadcast hands an envelope to the orderer; the answer is { status: 'SUCCESS', info }.
    async broadcast(envelope) {
        const answers = wire.stream(this.stub('broadcast'), 'broadcast', envelope);
        try {
            const answer = await answers.next();
            const status = Object.keys(wire.common.Status).find((name) => wire.common.Status[name] === answer.getStatus());
            return { status, info: answer.getInfo() };
        } finally {
            answers.done();
        }
    }

    // verdict waits until a member's peer has committed a transaction and gives its validation code by name.
    async verdict(member, txId, { channel = this.channel, user } = {}) {
        const identity = this.user(member, user);
        const request = make(gateway.CommitStatusRequest, { channelId: channel, transactionId: txId, identity: identity.creator });
        const raw = wire.bytes(request);
        const signed = make(gateway.SignedCommitStatusRequest, { request: raw, signature: await identity.sign(raw) });
        const status = await wire.unary(this.stub('gateway', member), 'commitStatus', signed);
        return Object.keys(peer.TxValidationCode).find((name) => peer.TxValidationCode[name] === status.getResult());
    }

    // blocks asks a member's peer (or the orderer) for blocks: blocks('org1', { start: 0, stop: 'newest' }). kind: deliver,
    // deliverFiltered, deliverWithPrivateData. What comes back is a wire.Answers. options as of wire.seek.
    async blocks(member, { kind = 'deliver', ...options }) {
        const identity = options.identity ?? this.user(member === 'orderer' ? 'org1' : member, options.user);
        const stub = member === 'orderer' ? this.stub('broadcast') : this.stub('deliver', member);
        return wire.stream(stub, kind, await wire.seek({ channel: this.channel, ...options, identity }));
    }

    // height is how many blocks a member's peer has.
    async height(member, channel = this.channel) {
        const answer = await this.process(member, { contract: 'qscc', args: ['GetChainInfo', channel], channel });
        return wire.common.BlockchainInfo.deserializeBinary(answer.getResponse().getPayload_asU8()).getHeight();
    }

    // deploy puts the contract in contracts/FOLDER on a channel, or upgrades it, and waits until every member's peer has it. See
    // contracts.mjs for the options. The same deployment is made only once.
    deploy(folder, options) { return this.contracts.deploy(folder, options); }

    // genesis makes the first block of another channel. description: { members: ['org1', ...] } and whatever else
    // `hansa channel genesis` reads (acls, batch, policies, ...).
    async genesis(name, { members = Object.keys(this.members), ...description } = {}) {
        const [host, port] = this.orderers[0].address.split(':');
        const crypto_ = path.join(this.dir, 'crypto');
        const spec = {
            channel: name,
            members: [
                { name: 'orderer', mspId: 'OrdererMSP', orderingOnly: true, mspDir: path.join(crypto_, 'ordererOrganizations', 'orderer.example.com', 'msp') },
                ...members.map((m) => this.member(m)).map((m) => ({
                    name: m.name, mspId: m.mspId, mspDir: path.join(crypto_, 'peerOrganizations', m.domain, 'msp'), anchorPeers: [m.address],
                })),
            ],
            orderers: [{ member: 'orderer', host, port: Number(port), tlsCert: this.orderers[0].tlsCert }],
            batch: this.setup.batch,
            ...description,
        };
        // JSON is YAML.
        const file = path.join(this.dir, `${name}.yaml`);
        fs.writeFileSync(file, JSON.stringify(spec));
        const output = path.join(this.dir, `${name}.block`);
        await this.hansa('channel', 'genesis', file, '--output', output);
        return fs.readFileSync(output);
    }

    // addChannel makes another channel and joins the orderer and its members' peers to it. description is that of genesis.
    async addChannel(name, { members = Object.keys(this.members), ...description } = {}) {
        const block = await this.genesis(name, { members, ...description });
        const joined = await this.participation('POST', '', block);
        if (joined.status !== 201) throw new Error(`join the orderer to ${name}: ${joined.status} ${JSON.stringify(joined.body)}`);
        await Promise.all(members.map(async (m) => {
            const answer = await this.process(m, {
                user: 'Admin', contract: 'cscc', args: ['JoinChain', block], channel: '', type: wire.common.HeaderType.CONFIG,
            });
            if (answer.getResponse().getStatus() !== 200) throw new Error(`join ${m} to ${name}: ${answer.getResponse().getMessage()}`);
        }));
        // An orderer without a leader says SERVICE_UNAVAILABLE.
        await eventually(async () => {
            const answers = await this.blocks('orderer', { channel: name, identity: this.user(members[0]), start: 'newest', stop: 'newest' });
            const answer = await answers.next();
            answers.close();
            return wire.statusOf(answer) === undefined;
        }, 30);
    }

    // ready waits until the peers of all members know each other.
    async ready() {
        const query = make(discovery.Query, { channel: this.channel, peerQuery: new discovery.PeerMembershipQuery() });
        await Promise.all(Object.keys(this.members).map((member) => eventually(async () => {
            const identity = this.user(member);
            const payload = wire.bytes(make(discovery.Request, { authentication: make(discovery.AuthInfo, { clientIdentity: identity.creator }), queries: [query] }));
            const request = make(discovery.SignedRequest, { payload, signature: await identity.sign(payload) });
            const [result] = (await wire.unary(this.stub('discovery', member), 'discover', request)).getResultsList();
            const known = result.getMembers().getPeersByOrgMap();
            return this.mspIds.every((mspId) => known.get(mspId)?.getPeersList().length > 0);
        }, 60)));
    }

    // participation calls the orderer's admin port as osnadmin does: participation('GET', '/business'), ('POST', '', block),
    // ('DELETE', '/other'). options: tls (folder of another client certificate, or null for none), and what replaces the body.
    async participation(method, target, block, options = {}) {
        const { request } = await import('node:https');
        const tls = options.tls === undefined ? this.user('orderer', 'Admin').tls : options.tls;
        let { body, headers = {} } = options;
        if (block !== undefined) {
            const form = new FormData();
            form.append(options.part ?? 'config-block', new Blob([block]), 'config.block');
            const encoded = new Response(form);
            body = Buffer.from(await encoded.arrayBuffer());
            headers = { 'content-type': encoded.headers.get('content-type'), ...headers };
        }
        return new Promise((resolve, reject) => {
            const call = request({
                host: '127.0.0.1', port: this.orderers[0].admin.split(':')[1], method, path: `/participation/v1/channels${target}`,
                ca: fs.readFileSync(this.orderers[0].tlsRoot), headers: { ...headers, ...(body ? { 'content-length': body.length } : {}) }, agent: false,
                ...(tls ? { cert: fs.readFileSync(path.join(tls, 'client.crt')), key: fs.readFileSync(path.join(tls, 'client.key')) } : {}),
            }, (response) => {
                const parts = [];
                response.on('data', (part) => parts.push(part));
                response.on('error', reject);
                response.on('end', () => {
                    const raw = Buffer.concat(parts);
                    let parsed = raw;
                    try { parsed = JSON.parse(raw); } catch { /* a block, or nothing */ }
                    resolve({ status: response.statusCode, headers: response.headers, body: parsed });
                });
            });
            call.on('error', reject);
            call.end(body);
        });
    }

    // hansa runs a command line of hansa and gives what it printed; it throws what went wrong.
    async hansa(...args) {
        try {
            return (await promisify(execFile)(this.setup.binary, args)).stdout;
        } catch (err) {
            throw new Error(`hansa ${args.join(' ')}: ${err.stderr || err.message}`);
        }
    }

    // signal sends a signal to a node ('peer0.org2'): SIGSTOP freezes it, SIGCONT lets it go on, SIGKILL has it restarted.
    async signal(node, signal) {
        process.kill((await this.#status()).find((p) => p.name === node).pid, signal);
    }

    // #status is how the network's processes are.
    async #status() {
        return JSON.parse(await this.hansa('status', '--json', '--data', this.dir));
    }

    // without runs something while a node ('peer0.org2', 'orderer0') is down: killed, and not restarted until it is done.
    async without(node, run) {
        const all = await this.#status();
        const supervisor = fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid)).map(Number).find((pid) => {
            try {
                const line = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
                return line[1] === 'up' && line.includes(this.dir);
            } catch {
                return false; // it has just ended
            }
        });
        process.kill(supervisor, 'SIGSTOP');
        try {
            process.kill(all.find((p) => p.name === node).pid, 'SIGKILL');
            return await run();
        } finally {
            process.kill(supervisor, 'SIGCONT');
            await eventually(async () => (await this.#status()).every((p) => p.is_ready), 30);
        }
    }

    // onClose is called when all is over.
    onClose(closer) { this.#closers.push(closer); }

    async close() {
        await Promise.allSettled(this.#closers.reverse().map((closer) => closer()));
    }
}

function identityOf({ mspId, certificate, key }) {
    return identityFrom(mspId, fs.readFileSync(certificate), fs.readFileSync(key));
}

// identityFrom makes an identity of PEM texts.
export function identityFrom(mspId, certificate, keyPem) {
    const key = crypto.createPrivateKey(keyPem);
    const credentials = Buffer.from(certificate);
    const signDigest = gatewayClient.signers.newPrivateKeySigner(key);
    return {
        mspId, credentials, key, signDigest,
        creator: wire.bytes(make(msp.SerializedIdentity, { mspid: mspId, idBytes: credentials })),
        sign: async (message) => signDigest(wire.sha256(message)),
    };
}
