'use strict';

const { Contract } = require('fabric-contract-api');
const { KeyEndorsementPolicy } = require('fabric-shim');

// RecordsContract offers one function for each call that a contract may make on public and private records, so that a test says which calls a
// transaction makes. Private values come in the transient map under "value".
class RecordsContract extends Contract {
    constructor() {
        super('records');
    }

    async Init(ctx, key, value) {
        await ctx.stub.putState(key, Buffer.from(value));
    }

    async Put(ctx, key, value) {
        await ctx.stub.putState(key, Buffer.from(value));
        return value;
    }

    async Get(ctx, key) {
        return text(await ctx.stub.getState(key));
    }

    async Delete(ctx, key) {
        await ctx.stub.deleteState(key);
    }

    async Fail(ctx, message) {
        throw new Error(message);
    }

    // Many writes several keys given as a JSON object.
    async Many(ctx, records) {
        for (const [key, value] of Object.entries(JSON.parse(records))) {
            await ctx.stub.putState(key, Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
        }
    }

    async Range(ctx, start, end) {
        return rows(ctx.stub.getStateByRange(start, end));
    }

    // Caller is how the contract sees who calls it.
    async Caller(ctx) {
        const { clientIdentity, stub } = ctx;
        return JSON.stringify({ mspId: clientIdentity.getMSPID(), id: clientIdentity.getID(), txId: stub.getTxID(), channel: stub.getChannelID(),
            email: clientIdentity.getAttributeValue('email') });
    }

    // Private data.

    async PutPrivate(ctx, collection, key) {
        const value = ctx.stub.getTransient().get('value');
        if (!value) {
            throw new Error('the transient map has no "value"');
        }
        await ctx.stub.putPrivateData(collection, key, value);
    }

    async GetPrivate(ctx, collection, key) {
        return text(await ctx.stub.getPrivateData(collection, key));
    }

    // AppendPrivate changes a private value that it reads.
    async AppendPrivate(ctx, collection, key, more) {
        const value = text(await ctx.stub.getPrivateData(collection, key));
        await ctx.stub.putPrivateData(collection, key, Buffer.from(value + more));
    }

    async PrivateHash(ctx, collection, key) {
        return Buffer.from((await ctx.stub.getPrivateDataHash(collection, key)) || []).toString('hex');
    }

    async DeletePrivate(ctx, collection, key) {
        await ctx.stub.deletePrivateData(collection, key);
    }

    async PurgePrivate(ctx, collection, key) {
        await ctx.stub.purgePrivateData(collection, key);
    }

    async PrivateRange(ctx, collection, start, end) {
        return rows(ctx.stub.getPrivateDataByRange(collection, start, end));
    }

    async PrivateRangeThenPut(ctx, collection, start, end, key) {
        await this.PrivateRange(ctx, collection, start, end);
        await ctx.stub.putState(key, Buffer.from('written'));
    }

    async PutThenPrivateRange(ctx, key, collection, start, end) {
        await ctx.stub.putState(key, Buffer.from('written'));
        return this.PrivateRange(ctx, collection, start, end);
    }

    async PrivateQuery(ctx, collection, query) {
        return rows(ctx.stub.getPrivateDataQueryResult(collection, query));
    }

    // VerifyPrivate compares a private value of the caller with the hash that the ledger holds of it.
    async VerifyPrivate(ctx, collection, key) {
        const crypto = require('crypto');
        const told = crypto.createHash('sha256').update(ctx.stub.getTransient().get('value')).digest('hex');
        return String(told === (await this.PrivateHash(ctx, collection, key)));
    }

    // JSON queries.

    async Query(ctx, query) {
        return rows(ctx.stub.getQueryResult(query));
    }

    async QueryPage(ctx, query, size, bookmark) {
        const { iterator, metadata } = await ctx.stub.getQueryResultWithPagination(query, Number(size), bookmark);
        const keys = JSON.parse(await rows(iterator)).map(({ key }) => key);
        return JSON.stringify({ keys, count: metadata.fetchedRecordsCount, bookmark: metadata.bookmark });
    }

    // QueryThenPut writes how many records a query found.
    async QueryThenPut(ctx, query, key) {
        const count = JSON.parse(await rows(ctx.stub.getQueryResult(query))).length;
        await ctx.stub.putState(key, Buffer.from(String(count)));
        return String(count);
    }

    async PageThenPut(ctx, query, key) {
        const { count } = JSON.parse(await this.QueryPage(ctx, query, '2', ''));
        await ctx.stub.putState(key, Buffer.from(String(count)));
    }

    async PrivateQueryThenPut(ctx, collection, query, key) {
        const count = JSON.parse(await this.PrivateQuery(ctx, collection, query)).length;
        await ctx.stub.putPrivateData(collection, key, Buffer.from(String(count)));
    }

    // Endorsement of single keys: members are their MSP ids, with commas between.

    async SetEndorsers(ctx, key, members) {
        await ctx.stub.setStateValidationParameter(key, policyOf(members.split(',')));
    }

    async GetEndorsers(ctx, key) {
        return members(await ctx.stub.getStateValidationParameter(key));
    }

    async ClearEndorsers(ctx, key) {
        await ctx.stub.setStateValidationParameter(key, Buffer.alloc(0));
    }

    async PutWithEndorsers(ctx, key, value, members) {
        await ctx.stub.putState(key, Buffer.from(value));
        await ctx.stub.setStateValidationParameter(key, policyOf(members.split(',')));
    }

    async SetPrivateEndorsers(ctx, collection, key, members) {
        await ctx.stub.setPrivateDataValidationParameter(collection, key, policyOf(members.split(',')));
    }

    async GetPrivateEndorsers(ctx, collection, key) {
        return members(await ctx.stub.getPrivateDataValidationParameter(collection, key));
    }
}

function text(value) {
    return Buffer.from(value || []).toString();
}

async function rows(iterator) {
    const found = [];
    if (iterator[Symbol.asyncIterator]) {
        for await (const { key, value } of iterator) {
            found.push({ key, value: value.toString() });
        }
    } else {
        for (let row = await iterator.next(); !row.done; row = await iterator.next()) {
            found.push({ key: row.value.key, value: row.value.value.toString() });
        }
        await iterator.close();
    }
    return JSON.stringify(found);
}

function policyOf(members) {
    const policy = new KeyEndorsementPolicy();
    policy.addOrgs('MEMBER', ...members);
    return Buffer.from(policy.getPolicy());
}

function members(policy) {
    if (!policy || policy.length === 0) {
        return '[]';
    }
    return JSON.stringify(new KeyEndorsementPolicy(policy).listOrgs().sort());
}

module.exports.RecordsContract = RecordsContract;
