import assert from 'node:assert/strict';
import { status as codes } from '@grpc/grpc-js';
import { CommitError, CommitStatusError, EndorseError, GatewayError } from '@hyperledger/fabric-gateway';
import { allOf, anyOf } from '../lib/contracts.mjs';
import { newID, rejects } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let any;
let both;

// detailsOf reads the ErrorDetails of a raw gRPC error: google.rpc.Status in the trailer, an Any for each.
function detailsOf(error) {
    const [raw] = error.metadata.get('grpc-status-details-bin');
    assert.ok(raw, 'there are no details');
    const fields = (bytes) => {
        const found = [];
        for (let i = 0; i < bytes.length;) {
            const tag = bytes[i++];
            let n = 0;
            for (let shift = 0, more = true; more; shift += 7) {
                more = bytes[i] >= 0x80;
                n += (bytes[i++] & 0x7f) * 2 ** shift;
            }
            if ((tag & 7) === 2) {
                found.push([tag >> 3, bytes.subarray(i, i + n)]);
                i += n;
            } else {
                found.push([tag >> 3, n]);
            }
        }
        return found;
    };
    const status = fields(raw);
    const of = (list, number) => list.filter(([n]) => n === number).map(([, value]) => value);
    return {
        code: of(status, 1)[0],
        details: of(status, 3).map((any) => {
            const inner = fields(any);
            assert.equal(Buffer.from(of(inner, 1)[0]).toString(), 'type.googleapis.com/gateway.ErrorDetail');
            return wire.gateway.ErrorDetail.deserializeBinary(of(inner, 2)[0]).toObject();
        }),
    };
}

export default {
    area: 'Gateway',
    title: 'Gateway: errors',
    about: 'gRPC codes, the client’s classes of errors, and `gateway.ErrorDetail` of each node that failed',
    setup: async (net) => {
        await net.deploy('basic', { name: 'errors', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        await net.deploy('basic', { name: 'errors-both', policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        [any, both] = [net.contract('org1', 'errors'), net.contract('org1', 'errors-both')];
    },
    cases: [
        {
            name: 'each step’s error is of its own class, and all are GatewayErrors or tell the code',
            run: async (net) => {
                const endorse = await rejects(any.submitTransaction('Fail', 'x'), { type: 'EndorseError', code: 'ABORTED' });
                assert.ok(endorse instanceof EndorseError && endorse instanceof GatewayError);
                const evaluate = await rejects(any.evaluateTransaction('Fail', 'x'), { type: 'GatewayError', code: 'UNKNOWN' });
                assert.ok(evaluate instanceof GatewayError);
                const stranger = net.gateway('org1', { identity: net.refused.stranger });
                const commit = await any.submitAsync('Put', { arguments: [newID(), 'v'] });
                const refusal = await rejects(stranger.newCommit(commit.getBytes()).getStatus(), { type: 'CommitStatusError', code: 'PERMISSION_DENIED' });
                assert.ok(refusal instanceof CommitStatusError);
                const key = newID();
                const late = await any.newProposal('Add', { arguments: [key, '1'] }).endorse();
                await any.submitTransaction('Add', key, '1');
                assert.equal((await (await late.submit()).getStatus()).successful, false);
                const results = await Promise.allSettled(Array.from({ length: 12 }, () => any.submitTransaction('Add', key, '1')));
                for (const { reason } of results.filter((r) => r.status === 'rejected')) assert.ok(reason instanceof CommitError && reason.code === 11, reason);
            },
        },
        {
            name: 'the wire form: google.rpc.Status with an ErrorDetail in the trailer',
            run: async (net) => {
                const { signed, txId } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: 'errors', args: ['Fail', 'on the wire'] });
                const request = wire.make(wire.gateway.EndorseRequest, { channelId: net.channel, transactionId: txId, proposedTransaction: signed });
                const error = await rejects(wire.unary(net.stub('gateway', 'org1'), 'endorse', request), { code: 'ABORTED' });
                assert.deepEqual(detailsOf(error), {
                    code: codes.ABORTED, details: [{ address: net.member('org1').address, mspId: 'Org1MSP', message: 'chaincode response 500, on the wire' }],
                });
            },
        },
        {
            name: 'an error knows its transaction',
            run: async () => {
                const proposal = any.newProposal('Fail', { arguments: ['x'] });
                const error = await rejects(proposal.endorse(), { type: 'EndorseError' });
                assert.equal(error.transactionId, proposal.getTransactionId());
            },
        },
        {
            name: 'a detail for each endorser that failed, with its member and address',
            misuse: true,
            run: async (net) => {
                const error = await rejects(both.newProposal('Fail', { arguments: ['both'], endorsingOrganizations: ['Org1MSP', 'Org2MSP'] }).endorse(), { type: 'EndorseError', code: 'ABORTED' });
                for (const { mspId, address, message } of error.details) {
                    assert.equal(address, net.setup.members.find((m) => m.mspId === mspId).address);
                    assert.match(message, /chaincode response 500, both/);
                }
                assert.ok(error.details.length >= 1);
            },
        },
        {
            name: 'endorsers that disagree: the detail says so',
            misuse: true,
            run: async () => {
                const error = await rejects(both.submitTransaction('Differ', newID()), { type: 'EndorseError', code: 'ABORTED' });
                assert.ok(error.details.some((d) => /ProposalResponsePayloads do not match/.test(d.message)), JSON.stringify(error.details));
            },
        },
        {
            name: 'a refusal of the gateway itself has no details',
            misuse: true,
            run: async (net) => {
                const error = await rejects(net.contract('org1', 'nowhere').evaluateTransaction('Get', 'k'), { type: 'GatewayError', code: 'FAILED_PRECONDITION' });
                assert.deepEqual(error.details, []);
            },
        },
        {
            name: 'messages of contracts: none, long, with any characters',
            misuse: true,
            run: async () => {
                for (const message of ['x'.repeat(3000), 'ä€𝄞 "quoted" \\ %s\nsecond line']) {
                    const error = await rejects(any.evaluateTransaction('Fail', message), { type: 'GatewayError', code: 'UNKNOWN' });
                    assert.equal(error.details[0].message, `chaincode response 500, ${message}`);
                }
                await rejects(any.evaluateTransaction('Fail', ''), { type: 'GatewayError', code: 'UNKNOWN' });
            },
        },
        {
            name: 'a method that the Gateway does not have',
            misuse: true,
            run: async (net) => {
                const call = new Promise((resolve, reject) => {
                    net.stub('gateway', 'org1').makeUnaryRequest('/gateway.Gateway/Guess', (b) => b, (b) => b, Buffer.alloc(0), (err, answer) => (err ? reject(err) : resolve(answer)));
                });
                await rejects(call, { code: 'UNIMPLEMENTED' });
            },
        },
        {
            name: 'bytes that are no request at all',
            misuse: true,
            run: async (net) => {
                const call = new Promise((resolve, reject) => {
                    net.stub('gateway', 'org1').makeUnaryRequest('/gateway.Gateway/Evaluate', (b) => b, (b) => b, Buffer.from('nonsense'), (err, answer) => (err ? reject(err) : resolve(answer)));
                });
                await rejects(call, {});
                await any.evaluateTransaction('Length', 'still there');
            },
        },
    ],
};
