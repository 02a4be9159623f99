// What the tests share: the network that gateway_test.go started, and connections to it.

import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import { after } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { connect, hash, signers } from '@hyperledger/fabric-gateway';

export const setup = JSON.parse(process.env.HANSA_NETWORK);

// grpcClient connects to a member's peer; it is closed when the file's tests are done.
export function grpcClient(member, options = {}, address = setup.members[member].address) {
    const { tlsRoot } = setup.members[member];
    const client = new grpc.Client(address, grpc.credentials.createSsl(fs.readFileSync(tlsRoot)), options);
    after(() => client.close());
    return client;
}

export function identity({ mspId, certificate }) {
    return { mspId, credentials: fs.readFileSync(certificate) };
}

export function signer({ key }) {
    return signers.newPrivateKeySigner(crypto.createPrivateKey(fs.readFileSync(key)));
}

// gateway connects as a member's user, unless options say otherwise.
export function gateway(member, options = {}) {
    const user = setup.members[member].user;
    const connection = connect({
        client: grpcClient(member), identity: identity(user), signer: signer(user), hash: hash.sha256,
        evaluateOptions: deadline(10), endorseOptions: deadline(15), submitOptions: deadline(10), commitStatusOptions: deadline(30),
        ...options,
    });
    after(() => connection.close());
    return connection;
}

export const deadline = (seconds) => () => ({ deadline: Date.now() + 1000 * seconds });

export const text = (bytes) => Buffer.from(bytes).toString();

let serial = 0;
// newID is an asset's id that no other test uses.
export const newID = () => `asset-${process.pid}-${++serial}`;

// next waits for the next element of an iterable, but not forever.
export async function next(iterator, seconds = 10) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing came within ${seconds} s`)), 1000 * seconds);
    });
    try {
        return (await Promise.race([iterator.next(), late])).value;
    } finally {
        clearTimeout(timer);
    }
}

// eventually waits until a condition holds, but not forever; while it fails it does not hold.
export async function eventually(condition, seconds = 10) {
    const end = Date.now() + 1000 * seconds;
    for (;;) {
        try {
            if (await condition()) return;
        } catch (err) {
            if (Date.now() > end) throw err;
        }
        if (Date.now() > end) throw new Error(`it did not come about within ${seconds} s`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
