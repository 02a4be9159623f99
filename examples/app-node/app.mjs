// A Hyperledger Fabric application, with Fabric's own client as it comes from npm, on a Hansa network: it loads a file of
// shipment records into the ledger, has members hand shipments to each other, reads all back, follows the contract's
// events with a checkpoint, and says how that went.
//
//   npm ci && node app.mjs --data hansa-network --records shipments.jsonl
//
// Nothing in it knows about Hansa: the network gives it a connection profile and a user's MSP folder, as a Fabric network
// does. connect.mjs is how it connects, tally.mjs and progress.mjs are for the person who looks on. The same application
// with Hansa's Go client is in examples/app-go.

import * as grpc from '@grpc/grpc-js';
import { checkpointers, CommitError, GatewayError } from '@hyperledger/fabric-gateway';
import { readFileSync } from 'node:fs';
import { parseArgs, isDeepStrictEqual } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectMember } from './connect.mjs';
import { Screen } from './progress.mjs';
import { Tally } from './tally.mjs';

const { values: flags } = parseArgs({
    options: {
        data: { type: 'string', default: 'hansa-network' }, // the network's folder
        records: { type: 'string', default: 'shipments.jsonl' }, // one record a line
        checkpoint: { type: 'string' }, // a file that remembers which events were handled
        as: { type: 'string', default: 'org2' }, // the member whose application this is
        to: { type: 'string', default: 'org1' }, // the member to hand shipments to
        channel: { type: 'string', default: 'business' },
        contract: { type: 'string', default: 'shipment' },
        concurrency: { type: 'string', default: '16' }, // transactions in flight at once
        transfers: { type: 'string', default: '0.2' }, // share of the shipments to hand over, and half of those back
        'wrong-owner': { type: 'string', default: '10' }, // shipments to claim that others hold: all must be rejected
        json: { type: 'boolean', default: false }, // the summary as one JSON object, all else on standard error
    },
});

const patience = 20_000; // milliseconds that a call is tried again while a node is away, as when it is restarted

const decoder = new TextDecoder();
const parse = bytes => JSON.parse(decoder.decode(bytes));

const records = readFileSync(flags.records, 'utf8').split('\n').filter(line => line).map(line => ({ id: JSON.parse(line).id, line }));
const own = connectMember(flags.data, flags.as, flags.channel, flags.contract);
const other = connectMember(flags.data, flags.to, flags.channel, flags.contract);
const events = followEvents();
const screen = new Screen(flags.json ? process.stderr : process.stdout);
const tally = new Tally();

process.exitCode = await run().catch(error => {
    console.error(`app-node: ${error.message}`, ...(error.details ?? []));
    return 1;
});
await events.close();
own.close();
other.close();

async function run() {
    screen.say(`  ${own.mspId}, ${records.length.toLocaleString('en')} records, ${flags.concurrency} at a time, ` +
        `contract "${flags.contract}", channel "${flags.channel}"`);

    tally.start();
    const created = [];
    await each('load', records, async record => {
        if (await submit(own, 'Create', record.line)) {
            created.push(record);
        }
    });

    const moved = created.slice(0, Math.floor(created.length * Number(flags.transfers)));
    await each('hand over', moved, ({ id }) => mustSubmit(own, 'Transfer', id, other.mspId));

    const back = moved.slice(0, moved.length >> 1);
    await each('hand back', back, async ({ id }) => {
        // Members' peers commit a block one after the other: wait until the other member sees the shipment in its hands.
        await untilHeldBy(other, id, other.mspId);
        await mustSubmit(other, 'Transfer', id, own.mspId);
    });

    // The rest is still in the other member's hands.
    await each('claim', moved.slice(back.length).slice(0, Number(flags['wrong-owner'])), async ({ id }) => {
        if (await submit(own, 'Transfer', id, own.mspId)) {
            throw new Error(`the ledger let a member transfer ${id}, which another holds`);
        }
    });
    tally.end();

    await each('read back', created, async ({ id, line }) => {
        const shipment = await read(own, id);
        if (!shipment) {
            tally.lost++;
        } else if (!Object.entries(JSON.parse(line)).every(([name, value]) => isDeepStrictEqual(value, shipment[name]))) {
            tally.different++;
        }
    });
    await events.caughtUp();

    tally.print(screen);
    if (flags.json) {
        console.log(JSON.stringify(tally.summary()));
    }
    const wrong = tally.verdict();
    if (wrong) {
        throw new Error(wrong);
    }
    return 0;
}

/** Does one step of the job with all items, some at a time. */
async function each(name, items, work) {
    const finish = screen.phase(name, items.length, tally);
    let next = 0;
    const worker = async () => {
        while (next < items.length) {
            await work(items[next++]);
            screen.step();
        }
    };
    try {
        await Promise.all(Array.from({ length: Number(flags.concurrency) }, worker));
    } finally {
        next = items.length;
        finish();
    }
}

/** Sends one transaction and waits until it is committed. A rejection is a result; any other failure is thrown. */
async function submit(member, name, ...args) {
    const started = performance.now();
    try {
        const transaction = await again(() => member.contract.newProposal(name, { arguments: args }).endorse());
        const commit = await again(() => transaction.submit()); // the same one each time, which the ledger takes once
        const status = await again(() => commit.getStatus());
        if (!status.successful) {
            throw new CommitError(status);
        }
        tally.commit(status.transactionId, performance.now() - started);
        return true;
    } catch (error) {
        const why = reason(error);
        if (!why) {
            throw error;
        }
        tally.reject(why);
        return false;
    }
}

async function mustSubmit(member, name, ...args) {
    if (!await submit(member, name, ...args)) {
        throw new Error(`${name} ${args.join(' ')} was rejected`);
    }
}

/** Tries a call until it succeeds, is rejected, or patience ends. */
async function again(call) {
    const begun = Date.now();
    for (let wait = 20; ; wait = Math.min(2 * wait, 1000)) {
        try {
            return await call();
        } catch (error) {
            if (!(error instanceof GatewayError) || reason(error) || Date.now() - begun > patience) {
                throw error;
            }
            await sleep(wait);
        }
    }
}

/** The shipment as the member's peer has it; undefined if it has not. */
async function read(member, id) {
    try {
        return parse(await again(() => member.contract.evaluateTransaction('Read', id)));
    } catch (error) {
        if (reason(error) === 'not found') {
            return undefined;
        }
        throw error;
    }
}

async function untilHeldBy(member, id, holder) {
    for (const end = Date.now() + 10_000; Date.now() < end; await sleep(5)) {
        if ((await read(member, id))?.holder === holder) {
            return;
        }
    }
    throw new Error(`the peer of ${member.mspId} does not show ${holder} as the holder of ${id}`);
}

/** Why the contract or the ledger rejected a transaction, in a few words; undefined if something else is broken. */
function reason(error) {
    if (error instanceof CommitError) {
        return error.message.match(/code \d+ \((\w+)\)/)?.[1] ?? `validation code ${error.code}`;
    }
    if (!(error instanceof GatewayError) || ![grpc.status.ABORTED, grpc.status.UNKNOWN].includes(error.code)) {
        return undefined;
    }
    const text = [error.message, ...error.details.map(detail => detail.message)].join('\n');
    return [
        ['already exists', 'duplicate id'],
        ['does not exist', 'not found'],
        ['is held by', 'wrong owner'],
        ['argument order of Create', 'invalid record'],
    ].find(([part]) => text.includes(part))?.[1];
}

/** Follows the contract's events from the checkpoint on, or from the ledger's first block. */
function followEvents() {
    const seen = new Map();
    let checkpoint;
    let events;
    let closed = false;
    let failure;
    const follow = async () => {
        checkpoint ??= flags.checkpoint ? await checkpointers.file(flags.checkpoint) : checkpointers.inMemory();
        events = await own.network.getChaincodeEvents(flags.contract, { checkpoint, startBlock: 0n });
        try {
            for await (const event of events) {
                seen.set(event.transactionId, (seen.get(event.transactionId) ?? 0) + 1);
                await checkpoint.checkpointChaincodeEvent(event);
            }
        } catch (error) {
            if (!closed) { // closing the stream ends it with an error too
                throw error;
            }
        }
    };
    const followed = (async () => {
        while (!closed) {
            await again(follow); // when the peer was away it goes on at the checkpoint
        }
    })().catch(error => { failure = error; });
    return {
        /** Waits until each of the committed transactions was announced. */
        async caughtUp() {
            for (const end = Date.now() + 15_000; Date.now() < end && !failure; await sleep(10)) {
                tally.countEvents(seen);
                if (tally.events + tally.eventsAgain === tally.committed.length) {
                    break;
                }
            }
            if (failure) {
                throw failure;
            }
        },
        async close() {
            closed = true;
            events?.close();
            await followed;
        },
    };
}
