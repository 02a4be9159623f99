// Fabric's protocol by hand: messages, signed proposals and envelopes, and the raw gRPC services of a node. Whatever can be got wrong on
// purpose (a signature, a header, a hash) is an option here, so that cases of misuse differ from good ones by one line.

import * as crypto from 'node:crypto';
import * as grpc from '@grpc/grpc-js';
import { common, discovery, gateway, msp, orderer, peer } from '@hyperledger/fabric-protos';

export { common, discovery, gateway, grpc, msp, orderer, peer };
export { ledger } from '@hyperledger/fabric-protos';

const upper = (name) => name[0].toUpperCase() + name.slice(1);

// make builds a protobuf message: make(common.ChannelHeader, { type: 3, channelId: 'business' }). Lists are arrays, maps are Maps, and
// fields left undefined are not set.
export function make(Type, fields = {}) {
    const message = new Type();
    for (const [name, value] of Object.entries(fields)) {
        if (value === undefined) continue;
        if (Array.isArray(value)) message[`set${upper(name)}List`](value);
        else if (value instanceof Map) value.forEach((v, k) => message[`get${upper(name)}Map`]().set(k, v));
        else message[`set${upper(name)}`](value);
    }
    return message;
}

// bytes serializes a message; strings become UTF-8, and bytes stay as they are.
export function bytes(value) {
    if (value?.serializeBinary) return Buffer.from(value.serializeBinary());
    return typeof value === 'string' ? Buffer.from(value) : value;
}

export const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), crypto.createHash('sha256')).digest();

export function timestamp(date = new Date()) {
    const Timestamp = new common.ChannelHeader().getTimestamp()?.constructor ?? TimestampType();
    return make(Timestamp, { seconds: Math.floor(date / 1000), nanos: (date % 1000) * 1e6 });
}

// The package does not export google.protobuf.Timestamp: a header with a timestamp has one.
function TimestampType() {
    return common.ChannelHeader.deserializeBinary(Buffer.from([0x1a, 0x00])).getTimestamp().constructor;
}

// header makes a payload's header. options: identity (required), channel, type, txId, nonce, timestamp, epoch, extension, version,
// tlsCertHash, creator.
export function header(options) {
    const { identity, type, channel = '', nonce = crypto.randomBytes(24), creator = identity.creator } = options;
    const txId = options.txId ?? sha256(nonce, creator).toString('hex');
    const channelHeader = make(common.ChannelHeader, {
        type, channelId: channel, txId, version: options.version, epoch: options.epoch, timestamp: options.timestamp ?? timestamp(),
        tlsCertHash: options.tlsCertHash,
    });
    if (options.extension) channelHeader.setExtension$(bytes(options.extension));
    const signatureHeader = make(common.SignatureHeader, { creator, nonce });
    return { txId, message: make(common.Header, { channelHeader: bytes(channelHeader), signatureHeader: bytes(signatureHeader) }) };
}

// propose makes a signed proposal to call a contract. options: identity, contract and args (strings or bytes) as a rule; transient
// ({ name: value }), isInit, the options of header, and sign (another signature, or none: async (bytes) => bytes).
// What comes back has { signed, proposal, txId, header }.
export async function propose(options) {
    const { identity, contract, args = [], transient = {}, isInit = false, sign = identity.sign } = options;
    const chaincodeId = make(peer.ChaincodeID, { name: contract });
    const made = header({
        type: common.HeaderType.ENDORSER_TRANSACTION, extension: make(peer.ChaincodeHeaderExtension, { chaincodeId }), ...options,
    });
    const input = make(peer.ChaincodeInput, { args: args.map(bytes), isInit });
    const spec = make(peer.ChaincodeSpec, { type: options.specType ?? peer.ChaincodeSpec.Type.NODE, chaincodeId, input });
    const payload = make(peer.ChaincodeProposalPayload, { input: bytes(make(peer.ChaincodeInvocationSpec, { chaincodeSpec: spec })) });
    for (const [name, value] of Object.entries(transient)) payload.getTransientmapMap().set(name, bytes(value));
    const proposal = make(peer.Proposal, { header: bytes(made.message), payload: bytes(payload) });
    const proposalBytes = bytes(proposal);
    const signed = make(peer.SignedProposal, { proposalBytes, signature: await sign(proposalBytes) });
    return { signed, proposal, txId: made.txId, header: made.message, payload, identity };
}

// transaction makes the signed envelope of endorsed answers to a proposal. options: identity and sign (default: the proposer's), payload
// (instead of what was endorsed), endorsements (instead of those of the answers).
export async function transaction(proposed, responses, options = {}) {
    const { identity = proposed.identity, sign = identity.sign } = options;
    // What is transient does not go into the ledger.
    const visible = make(peer.ChaincodeProposalPayload, { input: proposed.payload.getInput_asU8() });
    const action = make(peer.ChaincodeEndorsedAction, {
        proposalResponsePayload: options.payload ?? responses[0].getPayload_asU8(),
        endorsements: options.endorsements ?? responses.map((r) => r.getEndorsement()),
    });
    const actionPayload = make(peer.ChaincodeActionPayload, { chaincodeProposalPayload: bytes(visible), action });
    const act = make(peer.TransactionAction, { header: proposed.header.getSignatureHeader_asU8(), payload: bytes(actionPayload) });
    return envelope(proposed.header, make(peer.Transaction, { actions: options.actions?.(act) ?? [act] }), sign);
}

// envelope signs a header and data.
export async function envelope(headerMessage, data, sign) {
    const payload = bytes(make(common.Payload, { header: headerMessage, data: bytes(data) }));
    return make(common.Envelope, { payload, signature: await sign(payload) });
}

// position is where to seek: 'oldest', 'newest', 'next', a block's number, or 'none' for a position that says nothing.
export function position(at) {
    switch (at) {
    case undefined: return undefined;
    case 'oldest': return make(orderer.SeekPosition, { oldest: new orderer.SeekOldest() });
    case 'newest': return make(orderer.SeekPosition, { newest: new orderer.SeekNewest() });
    case 'next': return make(orderer.SeekPosition, { nextCommit: new orderer.SeekNextCommit() });
    case 'none': return new orderer.SeekPosition();
    default: return make(orderer.SeekPosition, { specified: make(orderer.SeekSpecified, { number: at }) });
    }
}

// Numbers above 2^53, such as the end of all blocks (2n ** 64n - 1n), fit on the wire but not through the package's setters.
function varint(n) {
    const out = [];
    for (; n >= 0x80n; n >>= 7n) out.push(Number(n & 0x7fn) | 0x80);
    return [...out, Number(n)];
}

const field = (number, content) => Buffer.concat([Buffer.from([number << 3 | 2, ...varint(BigInt(content.length))]), content]);

// seek makes the envelope that asks for blocks: seek({ identity, channel, start: 0, stop: 'newest' }). failIfNotReady asks for NOT_FOUND
// where a block is not there yet, instead of waiting. The options of header hold here too, and info replaces the whole question.
export async function seek(options) {
    const { identity, start, stop, failIfNotReady, sign = identity.sign } = options;
    const { FAIL_IF_NOT_READY, BLOCK_UNTIL_READY } = orderer.SeekInfo.SeekBehavior;
    let info = options.info ?? bytes(make(orderer.SeekInfo, {
        start: position(start), stop: typeof stop === 'bigint' ? undefined : position(stop), contentType: options.contentType,
        behavior: failIfNotReady ? FAIL_IF_NOT_READY : BLOCK_UNTIL_READY,
    }));
    if (typeof stop === 'bigint') info = Buffer.concat([info, field(2, field(3, Buffer.from([0x08, ...varint(stop)])))]);
    const made = header({ type: common.HeaderType.DELIVER_SEEK_INFO, ...options });
    return envelope(made.message, info, sign);
}

// unary calls a method of a stub, with a deadline: await unary(stub, 'processProposal', request).
export function unary(stub, method, request, seconds = 20) {
    return new Promise((resolve, reject) => {
        stub[method](request, new grpc.Metadata(), { deadline: Date.now() + 1000 * seconds }, (err, answer) => (err ? reject(err) : resolve(answer)));
    });
}

// Answers is a stream of answers that one takes one by one: await answers.next() is undefined when the stream has ended, and throws
// the gRPC error that ended it. close() ends it.
export class Answers {
    #waiting = [];
    #come = [];

    constructor(call) {
        this.call = call;
        call.on('data', (value) => this.#settle({ value }));
        call.on('end', () => this.#settle({ value: undefined, last: true }));
        call.on('error', (error) => this.#settle({ error, last: true }));
    }

    #settle(event) {
        const waiter = this.#waiting.shift();
        if (waiter) waiter(event);
        else this.#come.push(event);
    }

    async next(seconds = 10) {
        let event = this.#come[0]?.last ? this.#come[0] : this.#come.shift();
        if (!event) {
            let timer;
            const late = new Promise((resolve) => {
                timer = setTimeout(() => resolve({ error: new Error(`no answer came within ${seconds} s`) }), 1000 * seconds);
            });
            event = await Promise.race([new Promise((resolve) => this.#waiting.push(resolve)), late]);
            clearTimeout(timer);
        }
        if (event.error) throw event.error;
        return event.value;
    }

    // rest is all answers until the stream ends by itself; with half, after saying that no more is asked.
    async rest(seconds = 10) {
        const all = [];
        for (let answer; (answer = await this.next(seconds));) all.push(answer);
        return all;
    }

    // silent checks that nothing comes within a time.
    async silent(milliseconds = 150) {
        await new Promise((resolve) => setTimeout(resolve, milliseconds));
        if (this.#come.length > 0) throw new Error(`an answer came: ${JSON.stringify(this.#come[0].value?.toObject() ?? String(this.#come[0].error))}`);
    }

    send(message) { this.call.write(message); }

    // done says that nothing more is asked; answers may still come.
    done() { this.call.end(); }

    close() { this.call.cancel(); }
}

// stream opens a stream of a stub and sends messages: stream(stub, 'deliverFiltered', await seek({...})).
export function stream(stub, method, ...messages) {
    const call = stub[method]();
    const answers = new Answers(call);
    messages.forEach((m) => answers.send(m));
    return answers;
}

// statusOf is the Status that ends a Deliver stream's question, as text ('SUCCESS'), and undefined for a block.
export function statusOf(answer) {
    const types = answer.constructor.TypeCase;
    if (answer.getTypeCase() !== types.STATUS) return undefined;
    return Object.keys(common.Status).find((name) => common.Status[name] === answer.getStatus());
}

// blockOf is the block of a Deliver answer, whichever its kind.
export const blockOf = (answer) => answer.getBlock?.() ?? answer.getFilteredBlock?.() ?? answer.getBlockAndPrivateData?.();
