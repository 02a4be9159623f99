import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let auditor;
let plain;
const as = (net, identity) => net.contract('org1', 'identity', { identity });

export default {
    area: 'Contract features',
    title: 'Client identity',
    about: '`ClientIdentity`: the member, the certificate and its attributes (attribute based access control)',
    setup: async (net) => {
        await net.deploy('basic', { name: 'identity', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        auditor = await net.enroll('org1', { attributes: { role: 'auditor', 'limit.eur': '1000' } });
        plain = await net.enroll('org1');
    },
    cases: [
        {
            name: 'the member of each caller',
            run: async (net) => {
                for (const member of ['org1', 'org2', 'org3']) {
                    assert.equal(JSON.parse(text(await net.contract(member, 'identity').evaluateTransaction('Whoami'))).mspId, net.member(member).mspId);
                }
            },
        },
        {
            name: 'the caller’s id tells its certificate’s subject and issuer',
            run: async (net) => {
                const { id } = JSON.parse(text(await net.contract('org1', 'identity').evaluateTransaction('Whoami')));
                assert.match(id, /^x509::.*CN=User1@org1\.example\.com.*::.*CN=ca-org1$/);
            },
        },
        {
            name: 'a user whom the certificate authority gave attributes has them',
            run: async (net) => {
                assert.equal(text(await as(net, auditor).evaluateTransaction('Attribute', 'role')), 'auditor');
                assert.equal(text(await as(net, auditor).evaluateTransaction('Attribute', 'limit.eur')), '1000');
            },
        },
        {
            name: 'who has the attribute may do what it guards',
            run: async (net) => {
                const key = newID();
                await as(net, auditor).submitTransaction('OnlyWith', 'role', 'auditor', key);
                assert.equal(text(await as(net, plain).evaluateTransaction('Get', key)), 'auditor');
            },
        },
        {
            name: 'who lacks the attribute may not',
            misuse: true,
            run: (net) => rejects(as(net, plain).submitTransaction('OnlyWith', 'role', 'auditor', newID()), { type: 'EndorseError', code: 'ABORTED', message: /only who has role=auditor may do this/ }),
        },
        {
            name: 'who has another value of the attribute may not',
            misuse: true,
            run: (net) => rejects(as(net, auditor).submitTransaction('OnlyWith', 'role', 'boss', newID()), { type: 'EndorseError', code: 'ABORTED', message: /only who has role=boss/ }),
        },
        { name: 'an attribute that was not given is not there', misuse: true, run: async (net) => assert.equal(text(await as(net, auditor).evaluateTransaction('Attribute', 'hf.Registrar.Roles')), '') },
        {
            name: 'a certificate of another member’s authority is not the member’s',
            misuse: true,
            run: async (net) => {
                const other = await net.enroll('org2', { attributes: { role: 'auditor' } });
                const forged = { ...other, mspId: 'Org1MSP' };
                await rejects(as(net, forged).submitTransaction('OnlyWith', 'role', 'auditor', newID()), { type: 'EndorseError', code: 'ABORTED', message: /access denied|creator|identity/ });
            },
        },
        {
            name: 'a certificate whose attributes were changed is refused',
            misuse: true,
            run: async (net) => {
                const der = Buffer.from(auditor.credentials.toString().replace(/-----[^-]+-----|\s/g, ''), 'base64');
                const at = der.indexOf('auditor');
                assert.ok(at > 0);
                der.write('manager', at);
                const pem = `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
                const forged = { ...auditor, credentials: Buffer.from(pem) };
                await rejects(as(net, forged).submitTransaction('OnlyWith', 'role', 'manager', newID()), { type: 'EndorseError', code: 'ABORTED', message: /access denied|creator|identity/ });
            },
        },
    ],
};
