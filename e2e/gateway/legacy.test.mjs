// The older fabric-network against a Hansa network, with its connection profiles: without discovery and with it.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import test, { after } from 'node:test';
import fabricNetwork from 'fabric-network';
import { newID, setup } from './setup.mjs';

const { DefaultEventHandlerStrategies, Gateway, Wallets } = fabricNetwork;

async function connect(member, discovery) {
    const { profile, user } = setup.members[member];
    const wallet = await Wallets.newInMemoryWallet();
    await wallet.put('user', {
        type: 'X.509', mspId: user.mspId,
        credentials: { certificate: fs.readFileSync(user.certificate, 'utf8'), privateKey: fs.readFileSync(user.key, 'utf8') },
    });
    const gateway = new Gateway();
    await gateway.connect(JSON.parse(fs.readFileSync(profile, 'utf8')), {
        wallet, identity: 'user', discovery,
        eventHandlerOptions: { strategy: DefaultEventHandlerStrategies.MSPID_SCOPE_ALLFORTX, commitTimeout: 30 },
    });
    after(() => gateway.disconnect());
    return gateway.getNetwork(setup.channel);
}

for (const discovery of [{ enabled: false }, { enabled: true, asLocalhost: true }]) {
    test(`submit, evaluate and events, ${discovery.enabled ? 'with' : 'without'} discovery`, async () => {
        const network = await connect('org1', discovery);
        const contract = network.getContract('both');
        const id = newID();
        const transaction = contract.createTransaction('CreateAsset');
        if (!discovery.enabled) {
            // Who does not ask discovery names the endorsers.
            transaction.setEndorsingOrganizations('Org1MSP', 'Org2MSP');
        }
        await transaction.submit(id, 'red', '5', 'Tom', '100');
        assert.equal(JSON.parse((await contract.evaluateTransaction('ReadAsset', id)).toString()).Owner, 'Tom');
        await assert.rejects(contract.evaluateTransaction('ReadAsset', 'none'), /the asset none does not exist/);
        await assert.rejects(contract.submitTransaction('TransferAsset', 'none', 'Max'), /the asset none does not exist/);

        const asset = network.getContract('asset');
        const chaincodeEvents = [];
        const blocks = [];
        const listener = await asset.addContractListener(async (event) => chaincodeEvents.push(event));
        const blockListener = await network.addBlockListener(async (block) => blocks.push(block));
        const announced = newID();
        const creation = asset.createTransaction('CreateAsset');
        await creation.submit(announced, 'red', '5', 'Tom', '100');
        const deadline = Date.now() + 10_000;
        while (!chaincodeEvents.some((e) => e.payload.toString() === announced) || blocks.length === 0) {
            assert.ok(Date.now() < deadline, 'no event came within 10 s');
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        asset.removeContractListener(listener);
        network.removeBlockListener(blockListener);
        const event = chaincodeEvents.find((e) => e.payload.toString() === announced);
        assert.equal(event.eventName, 'AssetCreated');
        assert.equal(event.getTransactionEvent().transactionId, creation.getTransactionId());
    });
}
