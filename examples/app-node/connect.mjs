// How a Fabric application connects: the peer from the connection profile, the identity from an MSP folder.

import * as grpc from '@grpc/grpc-js';
import { connect, hash, signers } from '@hyperledger/fabric-gateway';
import * as crypto from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import * as path from 'node:path';

/** Connects as User1 of a member to the member's peer. */
export function connectMember(data, name, channel, contractName) {
    const profile = JSON.parse(readFileSync(path.join(data, 'members', name, 'connection.json'), 'utf8'));
    const { mspid: mspId, peers } = profile.organizations[name];
    const peer = profile.peers[peers[0]];
    const client = new grpc.Client(
        new URL(peer.url).host,
        grpc.credentials.createSsl(Buffer.from(peer.tlsCACerts.pem)),
        { 'grpc.ssl_target_name_override': peer.grpcOptions['ssl-target-name-override'] },
    );

    const msp = userFolder(data, name);
    const gateway = connect({
        client,
        identity: { mspId, credentials: firstFile(path.join(msp, 'signcerts')) },
        signer: signers.newPrivateKeySigner(crypto.createPrivateKey(firstFile(path.join(msp, 'keystore')))),
        hash: hash.sha256,
        evaluateOptions: () => ({ deadline: Date.now() + 5_000 }),
        endorseOptions: () => ({ deadline: Date.now() + 15_000 }),
        submitOptions: () => ({ deadline: Date.now() + 5_000 }),
        commitStatusOptions: () => ({ deadline: Date.now() + 60_000 }),
    });
    const network = gateway.getNetwork(channel);
    return {
        mspId,
        network,
        contract: network.getContract(contractName),
        close() {
            gateway.close();
            client.close();
        },
    };
}

function userFolder(data, name) {
    const organizations = path.join(data, 'crypto', 'peerOrganizations');
    const domain = readdirSync(organizations).find(entry => entry.startsWith(`${name}.`));
    if (!domain) {
        throw new Error(`there is no ${name} in ${organizations}`);
    }
    return path.join(organizations, domain, 'users', `User1@${domain}`, 'msp');
}

function firstFile(folder) {
    return readFileSync(path.join(folder, readdirSync(folder)[0]));
}
