// Runs the conformance suite: the features in features/*.mjs, by name, each with its cases, against the network that conformance_test.go
// started. `make conformance` runs all of it; `go test -v ./e2e/conformance -args -only NAME,NAME` runs some of them.
//
// How to add a feature: a file features/NAME.mjs,
//
//     import { anyOf } from '../lib/contracts.mjs';
//     import { newID, rejects, text } from '../lib/expect.mjs';
//
//     let asset; // whatever the cases share
//     export default {
//         area: 'Contract features',          // the heading in docs/compatibility.md: 'Services', 'Tools', 'Channel configuration', ...
//         title: 'State',                     // one line of the table
//         about: 'getState, putState, ...',   // what is meant
//         gaps: ['what does not work'],       // optional, honest
//         alone: true,                        // optional: disturbs the network, so it runs after all others
//         setup: async (net) => {             // optional; its failure fails every case
//             await net.deploy('basic', { name: 'state', policy: anyOf('Org1MSP.peer') });
//             asset = net.contract('org1', 'state');
//         },
//         cases: [
//             { name: 'a value is read back', run: async (net) => { ... } },                 // throws if Hansa is wrong
//             { name: 'an empty key is refused', misuse: true, run: async (net) => { ... } }, // at least three of these
//         ],
//     };
//
// The contracts are folders of contracts/ (package.json and a module; dependencies are those of this folder). net is lib/net.mjs: users,
// stock clients, raw gRPC stubs, deployment. lib/wire.mjs makes Fabric's messages by hand, lib/expect.mjs says what is expected.
// Cases run one after another and share the network: use names and keys of your own (newID), and wait with eventually, never for a time.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Net } from './lib/net.mjs';

const caseSeconds = 60;
const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), 'features');
const only = process.argv[2]?.split(',').filter(Boolean) ?? [];
const net = new Net(JSON.parse(process.env.HANSA_NETWORK));
const results = fs.openSync(process.env.HANSA_RESULTS, 'a');

// A rejection that nobody looks at is a case's own business: what a client leaves behind must not end the run.
process.on('unhandledRejection', (err) => console.error('unhandled rejection:', err));

async function bounded(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} did not end within ${caseSeconds} s`)), 1000 * caseSeconds);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

// explain is all that there is to say of an error but the clients' own stack frames.
function explain(error) {
    const stack = String(error.stack ?? error).split('\n').filter((line) => !/node_modules|node:internal/.test(line));
    const details = Array.isArray(error.details) ? error.details.map((d) => `${d.mspId} ${d.address}: ${d.message}`) : [];
    return [...stack, ...details].join('\n');
}

function report(feature, { name, misuse = false }, started, error) {
    const { area, title, about, gaps = [], file } = feature;
    const took = Date.now() - started;
    console.log(`${error ? 'FAILED' : 'passed'}  ${title}: ${name}${misuse ? ' (misuse)' : ''}  ${took} ms`);
    if (error) console.log(explain(error).replace(/^/gm, '        '));
    fs.writeSync(results, `${JSON.stringify({ file, area, title, about, gaps, name, misuse, passed: !error })}\n`);
}

async function runFeature(feature) {
    let broken;
    let started = Date.now();
    try {
        await bounded('setup', (async () => feature.setup?.(net))());
    } catch (err) {
        broken = err;
        broken.stack = `setup: ${broken.stack}`;
    }
    for (const one of feature.cases) {
        if (broken) {
            report(feature, one, started, broken);
            continue;
        }
        started = Date.now();
        try {
            await bounded('the case', (async () => one.run(net))());
            report(feature, one, started);
        } catch (err) {
            report(feature, one, started, err ?? new Error('a case threw nothing'));
        }
    }
}

const features = [];
for (const file of fs.readdirSync(folder).filter((f) => f.endsWith('.mjs')).sort()) {
    const name = path.basename(file, '.mjs');
    if (only.length > 0 && !only.includes(name)) continue;
    features.push({ file: name, ...(await import(path.join(folder, file))).default });
}
features.sort((a, b) => Boolean(a.alone) - Boolean(b.alone));
await net.ready();
for (const feature of features) await runFeature(feature);
await net.close();
process.exit(0);
