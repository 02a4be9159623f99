'use strict';

// One function for each thing that a contract can do, with Fabric's own contract API: the cases say what with.

const { Contract, Context } = require('fabric-contract-api');

const rows = async (iterator) => {
    const found = [];
    for await (const row of iterator) found.push({ key: row.key, value: row.value.toString() });
    return found;
};

const page = async ({ iterator, metadata }) => {
    const keys = [];
    for (let row = await iterator.next(); !row.done; row = await iterator.next()) keys.push(row.value.key);
    await iterator.close();
    // Of a page without rows the shim makes no metadata: on the wire it is empty.
    return { keys, count: metadata?.fetchedRecordsCount ?? 0, bookmark: metadata?.bookmark ?? '' };
};

// Basic is the package's default contract.
class Basic extends Contract {
    constructor() { super('basic'); }

    // State.
    async Put(ctx, key, value) { await ctx.stub.putState(key, Buffer.from(value)); }
    async PutMany(ctx, prefix, count, value) {
        for (let i = 0; i < Number(count); i++) await ctx.stub.putState(`${prefix}${String(i).padStart(4, '0')}`, Buffer.from(value));
    }
    async Get(ctx, key) { return (await ctx.stub.getState(key)).toString(); }
    async Delete(ctx, key) { await ctx.stub.deleteState(key); }
    // Add makes a transaction depend on what it read.
    async Add(ctx, key, n) {
        const sum = Number((await ctx.stub.getState(key)).toString() || '0') + Number(n);
        await ctx.stub.putState(key, Buffer.from(String(sum)));
        return String(sum);
    }
    // PutThenGet tells that a transaction does not read its own writes.
    async PutThenGet(ctx, key, value) {
        await ctx.stub.putState(key, Buffer.from(value));
        return (await ctx.stub.getState(key)).toString();
    }
    async Large(ctx, key, size) { await ctx.stub.putState(key, Buffer.alloc(Number(size), 'x')); }
    async LargeAnswer(ctx, size) { return 'x'.repeat(Number(size)); }
    async Length(ctx, value) { return String(Buffer.from(value).length); }

    // Ranges and composite keys.
    async Range(ctx, start, end) { return rows(ctx.stub.getStateByRange(start, end)); }
    async RangePage(ctx, start, end, size, bookmark) { return page(await ctx.stub.getStateByRangeWithPagination(start, end, Number(size), bookmark)); }
    // CountInto reads a range and writes how much is in it: what a phantom invalidates.
    async CountInto(ctx, start, end, key) { await ctx.stub.putState(key, Buffer.from(String((await rows(ctx.stub.getStateByRange(start, end))).length))); }
    async PageThenPut(ctx, start, end, key) {
        await page(await ctx.stub.getStateByRangeWithPagination(start, end, 2, ''));
        await ctx.stub.putState(key, Buffer.from('written'));
    }
    async PutComposite(ctx, type, parts, value) { await ctx.stub.putState(ctx.stub.createCompositeKey(type, JSON.parse(parts)), Buffer.from(value)); }
    async GetComposite(ctx, type, parts) { return (await ctx.stub.getState(ctx.stub.createCompositeKey(type, JSON.parse(parts)))).toString(); }
    async Composites(ctx, type, parts) {
        const found = [];
        for await (const row of ctx.stub.getStateByPartialCompositeKey(type, JSON.parse(parts))) {
            found.push({ ...ctx.stub.splitCompositeKey(row.key), value: row.value.toString() });
        }
        return found;
    }
    async CompositePage(ctx, type, parts, size, bookmark) {
        const { keys, ...rest } = await page(await ctx.stub.getStateByPartialCompositeKeyWithPagination(type, JSON.parse(parts), Number(size), bookmark));
        return { ...rest, keys: keys.map((k) => ctx.stub.splitCompositeKey(k).attributes) };
    }

    // History, newest first.
    async History(ctx, key) {
        const changes = [];
        for await (const change of ctx.stub.getHistoryForKey(key)) {
            changes.push({ txId: change.txId, isDelete: change.isDelete, value: change.value.toString(), seconds: Number(change.timestamp.seconds) });
        }
        return changes;
    }

    // What comes with the call.
    async Transient(ctx, name) { return Buffer.from(ctx.stub.getTransient().get(name) ?? '').toString(); }
    async TransientNames(ctx) { return [...ctx.stub.getTransient().keys()].sort(); }
    async Call(ctx) {
        const { seconds } = ctx.stub.getTxTimestamp();
        const creator = ctx.stub.getCreator();
        return { txId: ctx.stub.getTxID(), channel: ctx.stub.getChannelID(), args: ctx.stub.getArgs(), seconds: Number(seconds),
            mspId: creator.mspid, binding: ctx.stub.getBinding().toString('hex') };
    }
    async Whoami(ctx) {
        const { clientIdentity } = ctx;
        return { mspId: clientIdentity.getMSPID(), id: clientIdentity.getID(), serial: clientIdentity.getIDBytes().length > 0 };
    }
    async Attribute(ctx, name) { return ctx.clientIdentity.getAttributeValue(name) ?? ''; }
    // OnlyWith is attribute based access control.
    async OnlyWith(ctx, name, value, key) {
        if (!ctx.clientIdentity.assertAttributeValue(name, value)) throw new Error(`only who has ${name}=${value} may do this`);
        await ctx.stub.putState(key, Buffer.from(value));
    }

    // Events: the last one set counts.
    async Announce(ctx, name, payload) { ctx.stub.setEvent(name, Buffer.from(payload)); }
    async PutAndAnnounce(ctx, key, name, payload) {
        await ctx.stub.putState(key, Buffer.from(name));
        ctx.stub.setEvent(name, Buffer.from(payload));
    }
    async AnnounceTwice(ctx, name, first, second) {
        ctx.stub.setEvent(name, Buffer.from(first));
        ctx.stub.setEvent(name, Buffer.from(second));
    }

    // Another contract's function, given with its arguments as JSON, on this channel ('') or another.
    async Ask(ctx, contract, call, channel) {
        const answer = await ctx.stub.invokeChaincode(contract, JSON.parse(call), channel);
        if (answer.status !== 200) throw new Error(`${contract} answers ${answer.status}: ${answer.message}`);
        return Buffer.from(answer.payload).toString();
    }
    async AskAndPut(ctx, contract, call, channel, key) {
        await this.Ask(ctx, contract, call, channel);
        await ctx.stub.putState(key, Buffer.from('asked'));
    }
    // AskStatus does not mind what the answer is.
    async AskStatus(ctx, contract, call, channel) {
        const { status, message } = await ctx.stub.invokeChaincode(contract, JSON.parse(call), channel);
        return { status, message };
    }

    async Fail(ctx, message) { throw new Error(message); }
    async PutThenFail(ctx, key, message) {
        await ctx.stub.putState(key, Buffer.from('lost'));
        throw new Error(message);
    }
    async Sleep(ctx, milliseconds) { await new Promise((resolve) => setTimeout(resolve, Number(milliseconds))); return 'awake'; }
    // Differ answers differently wherever it runs.
    async Differ(ctx, key) { await ctx.stub.putState(key, Buffer.from(String(process.hrtime.bigint()))); }

    // Key-level endorsement.
    async SetPolicy(ctx, key, policy) { await ctx.stub.setStateValidationParameter(key, Buffer.from(policy, 'base64')); }
    async GetPolicy(ctx, key) { return Buffer.from((await ctx.stub.getStateValidationParameter(key)) ?? []).toString('base64'); }
}

// Ledger is a second contract of the package, with a context and hooks of its own.
class LedgerContext extends Context {
    constructor() {
        super();
        this.before = 'nothing';
    }
}

class Ledger extends Contract {
    constructor() { super('ledger.second'); }
    createContext() { return new LedgerContext(); }
    async beforeTransaction(ctx) { ctx.before = ctx.stub.getFunctionAndParameters().fcn; }
    async unknownTransaction(ctx) { throw new Error(`the ledger knows no ${ctx.stub.getFunctionAndParameters().fcn}`); }
    async Put(ctx, key, value) { await ctx.stub.putState(`second:${key}`, Buffer.from(value)); }
    async Get(ctx, key) { return (await ctx.stub.getState(`second:${key}`)).toString(); }
    async Before(ctx) { return ctx.before; }
}

module.exports.contracts = [Basic, Ledger];
