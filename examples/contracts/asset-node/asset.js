'use strict';

const { Contract } = require('fabric-contract-api');

const COLLECTION = 'details';

// AssetContract keeps simple assets under their ids. It offers the functions of Fabric's asset-transfer-basic sample, and one of
// each other kind of access that a contract has: ranges, pages, JSON queries, history, private data, key-level endorsement, events, other contracts.
class AssetContract extends Contract {
    constructor() {
        super('asset');
    }

    async CreateAsset(ctx, id, color, size, owner, appraisedValue) {
        if (await this.AssetExists(ctx, id)) {
            throw new Error(`the asset ${id} already exists`);
        }
        const asset = { ID: id, Color: color, Size: Number(size), Owner: owner, AppraisedValue: Number(appraisedValue) };
        await ctx.stub.putState(id, encode(asset));
        ctx.stub.setEvent('AssetCreated', Buffer.from(id));
        return JSON.stringify(asset);
    }

    async ReadAsset(ctx, id) {
        const value = await ctx.stub.getState(id);
        if (!value || value.length === 0) {
            throw new Error(`the asset ${id} does not exist`);
        }
        return value.toString();
    }

    async TransferAsset(ctx, id, newOwner) {
        const asset = JSON.parse(await this.ReadAsset(ctx, id));
        const before = asset.Owner;
        asset.Owner = newOwner;
        await ctx.stub.putState(id, encode(asset));
        return before;
    }

    async DeleteAsset(ctx, id) {
        await this.ReadAsset(ctx, id);
        await ctx.stub.deleteState(id);
    }

    async AssetExists(ctx, id) {
        const value = await ctx.stub.getState(id);
        return Boolean(value && value.length > 0);
    }

    async GetAllAssets(ctx) {
        const assets = [];
        for await (const row of ctx.stub.getStateByRange('', '')) {
            assets.push(JSON.parse(row.value.toString()));
        }
        return JSON.stringify(assets);
    }

    async GetAssetPage(ctx, pageSize, bookmark) {
        const { iterator, metadata } = await ctx.stub.getStateByRangeWithPagination('', '', Number(pageSize), bookmark);
        const ids = [];
        for (let row = await iterator.next(); !row.done; row = await iterator.next()) {
            ids.push(row.value.key);
        }
        await iterator.close();
        return JSON.stringify({ ids, count: metadata.fetchedRecordsCount, bookmark: metadata.bookmark });
    }

    // QueryAssets answers a query in CouchDB's selector language; META-INF holds the indexes.
    async QueryAssets(ctx, query) {
        const rows = [];
        for await (const row of ctx.stub.getQueryResult(query)) {
            rows.push(JSON.parse(row.value.toString()));
        }
        return JSON.stringify(rows);
    }

    async QueryAssetPage(ctx, query, pageSize, bookmark) {
        const { iterator, metadata } = await ctx.stub.getQueryResultWithPagination(query, Number(pageSize), bookmark);
        const ids = [];
        for (let row = await iterator.next(); !row.done; row = await iterator.next()) {
            ids.push(row.value.key);
        }
        await iterator.close();
        return JSON.stringify({ ids, count: metadata.fetchedRecordsCount, bookmark: metadata.bookmark });
    }

    async QueryDetails(ctx, query) {
        const ids = [];
        for await (const row of ctx.stub.getPrivateDataQueryResult(COLLECTION, query)) {
            ids.push(row.key);
        }
        return JSON.stringify(ids);
    }

    // GiveAll transfers what a query selects.
    async GiveAll(ctx, query, newOwner) {
        let count = 0;
        for await (const row of ctx.stub.getQueryResult(query)) {
            const asset = JSON.parse(row.value.toString());
            asset.Owner = newOwner;
            await ctx.stub.putState(row.key, encode(asset));
            count++;
        }
        return String(count);
    }

    async GetAssetHistory(ctx, id) {
        const changes = [];
        for await (const change of ctx.stub.getHistoryForKey(id)) {
            changes.push({ txId: change.txId, isDelete: change.isDelete, value: change.value.toString() });
        }
        return JSON.stringify(changes);
    }

    // PutDetails keeps what the transient map carries under "details" in the private collection.
    async PutDetails(ctx, id) {
        const details = ctx.stub.getTransient().get('details');
        if (!details) {
            throw new Error('the transient map has no "details"');
        }
        await ctx.stub.putPrivateData(COLLECTION, id, details);
    }

    async ReadDetails(ctx, id) {
        const value = await ctx.stub.getPrivateData(COLLECTION, id);
        return value.toString();
    }

    async DetailsHash(ctx, id) {
        return Buffer.from(await ctx.stub.getPrivateDataHash(COLLECTION, id)).toString('hex');
    }

    async SetEndorsers(ctx, id, policy) {
        await ctx.stub.setStateValidationParameter(id, Buffer.from(policy, 'base64'));
    }

    async GetEndorsers(ctx, id) {
        const policy = await ctx.stub.getStateValidationParameter(id);
        return Buffer.from(policy || []).toString('base64');
    }

    // Ask calls a function of another contract, given with its arguments as a JSON array, and gives its answer.
    async Ask(ctx, contract, call) {
        const answer = await ctx.stub.invokeChaincode(contract, JSON.parse(call), '');
        return Buffer.from(answer.payload).toString();
    }

    async Whoami(ctx) {
        return ctx.clientIdentity.getMSPID();
    }
}

function encode(asset) {
    return Buffer.from(JSON.stringify(asset));
}

module.exports.AssetContract = AssetContract;
