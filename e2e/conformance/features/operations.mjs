// The operations port of peers, orderers and certificate authorities.

import assert from 'node:assert/strict';
import { newID } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';

let ports; // by the name of a process

async function call(name, path, { method = 'GET', body } = {}) {
    const response = await fetch(`http://${ports[name]}${path}`, { method, body });
    const text = await response.text();
    let json;
    try { json = JSON.parse(text); } catch { /* metrics */ }
    return { status: response.status, type: response.headers.get('content-type'), text, json };
}

// setLevel is a change of the logging specification, and what came of it.
const setLevel = (name, spec) => call(name, '/logspec', { method: 'PUT', body: JSON.stringify({ spec }) });

// value is that of a metric of a text in Prometheus' format, the sum over the lines that have these labels.
function value(text, name, ...labels) {
    const lines = text.split('\n').filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && labels.every((l) => line.includes(l)));
    assert.ok(lines.length > 0, `there is no ${name} with ${labels}`);
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

export default {
    area: 'Services',
    title: 'Operations port',
    about: '`/healthz`, `/version`, `/metrics` and `/logspec`',
    gaps: ['Metrics have names of Hansa\'s own, but for the endorser\'s; levels of single loggers are taken and told, and change nothing'],
    setup: async (net) => {
        await records(net);
        const all = JSON.parse(await net.hansa('status', '--json', '--data', net.dir));
        ports = Object.fromEntries(all.filter((p) => p.ready).map((p) => [p.name, new URL(p.ready).host]));
    },
    cases: [{
        name: '/healthz of every process says OK, with the time',
        run: async () => {
            for (const name of ['peer0.org1', 'orderer0', 'ca-org1']) {
                const { status, type, json } = await call(name, '/healthz');
                assert.equal(status, 200, name);
                assert.match(type, /application\/json/);
                assert.equal(json.status, 'OK');
                assert.ok(Math.abs(Date.parse(json.time) - Date.now()) < 60_000);
            }
        },
    }, {
        name: '/version says which version and commit run',
        run: async () => {
            for (const name of ['peer0.org1', 'orderer0']) {
                const { status, json } = await call(name, '/version');
                assert.equal(status, 200);
                assert.equal(typeof json.Version, 'string');
            }
        },
    }, {
        name: '/metrics counts proposals, blocks and envelopes in Prometheus\' format',
        run: async (net) => {
            const before = [await call('peer0.org1', '/metrics'), await call('orderer0', '/metrics')].map(({ text }) => text);
            await (await records(net)).submitTransaction('Put', newID(), 'x');
            const after = [await call('peer0.org1', '/metrics'), await call('orderer0', '/metrics')];
            assert.match(after[0].type, /text\/plain/);
            const grows = (i, ...metric) => assert.ok(value(after[i].text, ...metric) > value(before[i], ...metric), metric[0]);
            grows(0, 'endorser_proposals_received');
            grows(0, 'hansa_commit_height', `channel="${net.channel}"`);
            grows(1, 'hansa_broadcast_processed_total', 'status="SUCCESS"');
            grows(1, 'hansa_order_height_blocks', `channel="${net.channel}"`);
        },
    }, {
        name: '/logspec is told and changed, with Fabric\'s levels and loggers',
        run: async () => {
            try {
                for (const [spec, told] of [['debug', 'debug'], ['gossip=warning:info', 'gossip=warn:info'], ['', 'info'], ['ERROR', 'error']]) {
                    const answer = await setLevel('peer0.org3', spec);
                    assert.equal(answer.status, 204, answer.text);
                    assert.deepEqual((await call('peer0.org3', '/logspec')).json, { spec: told });
                }
            } finally {
                await setLevel('peer0.org3', 'info');
            }
        },
    }, {
        name: 'levels that are none leave the level as it was',
        misuse: true,
        run: async () => {
            await setLevel('peer0.org3', 'info');
            for (const [spec, why] of [
                ['loud', 'invalid logging specification \'loud\': bad segment \'loud\''],
                ['a=b=debug', 'invalid logging specification \'a=b=debug\': bad segment \'a=b=debug\''],
                ['=debug', 'invalid logging specification \'=debug\': no logger specified in segment \'=debug\''],
                ['a..b=debug', 'invalid logging specification \'a..b=debug\': bad logger name \'a..b\''],
            ]) {
                const { status, json } = await setLevel('peer0.org3', spec);
                assert.equal(status, 400);
                assert.equal(json.error, why);
            }
            assert.deepEqual((await call('peer0.org3', '/logspec')).json, { spec: 'info' });
        },
    }, {
        name: 'a body of /logspec that is no JSON, or too long',
        misuse: true,
        run: async () => {
            for (const body of ['debug', '{"spec":', '[]', JSON.stringify({ spec: 'a'.repeat(1 << 20) })]) {
                const { status, json } = await call('peer0.org3', '/logspec', { method: 'PUT', body });
                assert.equal(status, 400);
                assert.ok(json.error);
            }
        },
    }, {
        name: 'methods that there are not',
        misuse: true,
        run: async () => {
            const post = { method: 'POST', body: '{}' };
            const logspec = await call('peer0.org1', '/logspec', post);
            assert.deepEqual([logspec.status, logspec.json], [400, { error: 'invalid request method: POST' }]);
            const version = await call('peer0.org1', '/version', post);
            assert.deepEqual([version.status, version.json], [400, { Error: 'invalid request method: POST' }]);
            assert.equal((await call('peer0.org1', '/healthz', post)).status, 405);
        },
    }, {
        name: 'what is not there',
        misuse: true,
        run: async () => {
            for (const path of ['/', '/nothing', '/healthz/x', '/../metrics/x']) {
                assert.equal((await call('peer0.org1', path)).status, 404, path);
            }
        },
    }],
};
