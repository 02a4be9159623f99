// A member's certificate authority, with the stock fabric-ca-client.

import assert from 'node:assert/strict';
import { X509Certificate, createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { request } from 'node:https';
import FabricCAServices from 'fabric-ca-client';
import { newID, text } from '../lib/expect.mjs';
import { identityFrom } from '../lib/net.mjs';
import { records } from '../lib/records.mjs';

let ca; // service, admin, userOf, mspId of org1

// refused checks the code of the server's answer.
async function refused(code, promise) {
    await assert.rejects(promise, (err) => {
        assert.equal(err.success, false, `no answer of the server: ${err.stack ?? err}`);
        assert.equal(err.errors?.[0]?.code, code, `answered ${JSON.stringify(err.errors)}`);
        return true;
    });
}

async function enroll(enrollmentID, enrollmentSecret, more = {}) {
    const enrollment = await ca.service.enroll({ enrollmentID, enrollmentSecret, ...more });
    return { ...enrollment, x509: new X509Certificate(enrollment.certificate), user: await ca.userOf(enrollmentID, enrollment) };
}

// registered is a new identity with its enrollment.
async function registered({ id = newID('user'), ...more } = {}) {
    const secret = await ca.service.register({ enrollmentID: id, affiliation: '', role: 'client', maxEnrollments: -1, ...more }, ca.admin);
    return { id, secret, ...await enroll(id, secret) };
}

// attributes are those in a certificate's extension: its only JSON.
function attributes(x509) {
    const raw = x509.raw.toString('latin1');
    const start = raw.indexOf('{"attrs":');
    return start < 0 ? {} : JSON.parse(raw.slice(start, raw.indexOf('}}', start) + 2)).attrs;
}

// raw calls the REST API without the client: { status, body }.
function raw(net, method, path, { headers = {}, body = '' } = {}) {
    const { address, tlsRoot } = net.member('org1').ca;
    const [host, port] = address.split(':');
    return new Promise((resolve, reject) => {
        const call = request({ host, port, method, path, ca: fs.readFileSync(tlsRoot), agent: false, headers: { 'content-length': Buffer.byteLength(body), ...headers } }, (response) => {
            const parts = [];
            response.on('data', (part) => parts.push(part));
            response.on('error', reject);
            response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text(Buffer.concat(parts)) || 'null') }));
        });
        call.on('error', reject);
        call.end(body);
    });
}

async function refusedRaw(net, status, code, ...args) {
    const answer = await raw(net, ...args);
    assert.deepEqual([answer.status, answer.body.success, answer.body.errors[0].code], [status, false, code], JSON.stringify(answer.body));
}

const basic = (user, password) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

export default {
    area: 'Identities',
    title: 'Fabric CA client',
    about: 'register, enroll with attributes, TLS profile, reenroll, revoke, CRL, identities, affiliations, certificates',
    setup: async (net) => { ca = await net.ca('org1'); },
    cases: [{
        name: 'register and enroll: who comes out may act on the channel',
        run: async (net) => {
            const { x509, certificate, key } = await registered();
            assert.match(x509.subject, /OU=client/);
            const identity = identityFrom(ca.mspId, certificate, key.toBytes());
            const contract = await records(net, 'org1', { identity });
            const record = newID();
            await contract.submitTransaction('Put', record, 'by a new user');
            assert.equal(text(await contract.evaluateTransaction('Get', record)), 'by a new user');
        },
    }, {
        name: 'attributes go into the certificate, those asked for only if asked',
        run: async (net) => {
            const { id, secret, x509, certificate, key } = await registered({
                attrs: [{ name: 'email', value: 'carol@example.com', ecert: true }, { name: 'grade', value: '7' }],
            });
            assert.deepEqual(attributes(x509), { email: 'carol@example.com', 'hf.Affiliation': '', 'hf.EnrollmentID': id, 'hf.Type': 'client' });
            const asked = await enroll(id, secret, { attr_reqs: [{ name: 'grade' }, { name: 'none', optional: true }] });
            assert.deepEqual(attributes(asked.x509), { grade: '7' });
            // The contract reads it.
            const contract = await records(net, 'org1', { identity: identityFrom(ca.mspId, certificate, key.toBytes()) });
            assert.equal(JSON.parse(text(await contract.evaluateTransaction('Caller'))).email, 'carol@example.com');
        },
    }, {
        name: 'the TLS profile gives a server\'s certificate with the hosts of the request',
        run: async () => {
            const id = newID('peer');
            await ca.service.register({ enrollmentID: id, enrollmentSecret: 'pw', role: 'peer', affiliation: '', maxEnrollments: -1 }, ca.admin);
            const key = FabricCAServices.newCryptoSuite().generateEphemeralKey();
            const csr = key.generateCSR(`CN=${id}`, [{ subjectAltName: { array: [{ dns: 'peer9.example.com' }, { ip: '127.0.0.1' }] } }]);
            const { certificate } = await ca.service.enroll({ enrollmentID: id, enrollmentSecret: 'pw', profile: 'tls', csr });
            const x509 = new X509Certificate(certificate);
            assert.equal(x509.checkHost('peer9.example.com'), 'peer9.example.com');
            assert.equal(x509.checkIP('127.0.0.1'), '127.0.0.1');
            assert.match(x509.subject, /OU=peer/);
        },
    }, {
        name: 'reenroll gives another certificate for the same identity',
        run: async () => {
            const { id, user, x509 } = await registered({ attrs: [{ name: 'email', value: 'a@b', ecert: true }] });
            const again = new X509Certificate((await ca.service.reenroll(user)).certificate);
            assert.notEqual(again.serialNumber, x509.serialNumber);
            assert.ok(again.subject.includes(`CN=${id}`));
            assert.equal(attributes(again).email, 'a@b');
        },
    }, {
        name: 'revoke one certificate; the CRL names it',
        run: async () => {
            const { user, x509 } = await registered();
            const serial = x509.serialNumber.toLowerCase();
            const before = await ca.service.generateCRL({}, ca.admin);
            // The authority key identifier, from the extension's bytes.
            const at = x509.raw.indexOf(Buffer.from('0603551d23', 'hex'));
            const aki = x509.raw.subarray(x509.raw.indexOf(Buffer.from([0x80, 0x20]), at) + 2).subarray(0, 32).toString('hex');
            const { result } = await ca.service.revoke({ serial, aki, reason: 'keycompromise', gencrl: true }, ca.admin);
            assert.equal(result.RevokedCerts.length, 1);
            const crl = await ca.service.generateCRL({}, ca.admin);
            assert.ok(crl.length > before.length);
            const der = Buffer.from(text(Buffer.from(crl, 'base64')).replace(/-----[^-]+-----|\s/g, ''), 'base64');
            assert.ok(der.includes(Buffer.from(serial.padStart(serial.length + serial.length % 2, '0'), 'hex')));
            await refused(20, ca.service.reenroll(user));
        },
    }, {
        name: 'revoke an identity, with all of its certificates',
        run: async () => {
            const { id, secret, user } = await registered();
            await enroll(id, secret);
            const { result } = await ca.service.revoke({ enrollmentID: id, reason: 'cessationofoperation' }, ca.admin);
            assert.equal(result.RevokedCerts.length, 2);
            await refused(20, ca.service.reenroll(user));
            await refused(20, ca.service.enroll({ enrollmentID: id, enrollmentSecret: secret }));
        },
    }, {
        name: 'identities are created, told, changed and listed',
        run: async () => {
            const service = ca.service.newIdentityService();
            const id = newID('erin');
            assert.ok(await service.create({ enrollmentID: id, affiliation: 'org1', type: 'client', maxEnrollments: 5, attrs: [{ name: 'a', value: '1' }] }, ca.admin));
            const { result: one } = await service.getOne(id, ca.admin);
            assert.deepEqual([one.id, one.affiliation, one.max_enrollments], [id, 'org1', 5]);
            const { result: changed } = await service.update(id, { affiliation: 'org1.department1', enrollmentSecret: 'new', attrs: [{ name: 'a', value: '2' }] }, ca.admin);
            assert.equal(changed.affiliation, 'org1.department1');
            assert.equal(changed.attrs.find((a) => a.name === 'a').value, '2');
            await enroll(id, 'new');
            const { result: all } = await service.getAll(ca.admin);
            assert.ok(all.identities.some((i) => i.id === id) && all.identities.some((i) => i.id === 'admin'));
        },
    }, {
        name: 'affiliations are created, told and renamed',
        run: async () => {
            const service = ca.service.newAffiliationService();
            const [name, renamed] = [newID('branch'), newID('branch')];
            await service.create({ name: `${name}.a.b`, force: true }, ca.admin);
            const { result: one } = await service.getOne(name, ca.admin);
            assert.equal(one.affiliations[0].affiliations[0].name, `${name}.a.b`);
            await service.update(name, { name: renamed }, ca.admin);
            const { result: all } = await service.getAll(ca.admin);
            assert.ok(all.affiliations.some((a) => a.name === renamed) && !all.affiliations.some((a) => a.name === name));
        },
    }, {
        name: 'certificates are listed by identity and serial number',
        run: async () => {
            const { id, x509, secret } = await registered();
            await enroll(id, secret);
            const service = ca.service.newCertificateService();
            assert.equal((await service.getCertificates({ id }, ca.admin)).result.certs.length, 2);
            const { result } = await service.getCertificates({ serial: x509.serialNumber, notrevoked: true }, ca.admin);
            assert.equal(new X509Certificate(result.certs[0].PEM).serialNumber, x509.serialNumber);
        },
    }, {
        name: 'cainfo tells name, chain and version, to anybody',
        run: async (net) => {
            const { status, body } = await raw(net, 'GET', '/api/v1/cainfo');
            assert.equal(status, 200);
            assert.equal(body.result.CAName, net.member('org1').ca.name);
            assert.match(text(Buffer.from(body.result.CAChain, 'base64')), /BEGIN CERTIFICATE/);
            assert.ok(body.result.Version);
        },
    }, {
        name: 'a wrong password, and an identity that is not there',
        misuse: true,
        run: async () => {
            const { id } = await registered();
            await refused(20, ca.service.enroll({ enrollmentID: id, enrollmentSecret: 'guess' }));
            await refused(20, ca.service.enroll({ enrollmentID: newID('nobody'), enrollmentSecret: 'guess' }));
        },
    }, {
        name: 'a secret that is used up',
        misuse: true,
        run: async () => {
            const { id, secret } = await registered({ maxEnrollments: 1 });
            await refused(20, ca.service.enroll({ enrollmentID: id, enrollmentSecret: secret }));
        },
    }, {
        name: 'registering a name twice, an affiliation or a role that is not there',
        misuse: true,
        run: async () => {
            const { id } = await registered();
            await refused(74, ca.service.register({ enrollmentID: id, affiliation: '', role: 'client' }, ca.admin));
            await refused(16, ca.service.register({ enrollmentID: newID(), affiliation: 'nowhere', role: 'client' }, ca.admin));
        },
    }, {
        name: 'whoever is no registrar registers, revokes and lists nothing',
        misuse: true,
        run: async () => {
            const { user } = await registered();
            await refused(71, ca.service.register({ enrollmentID: newID(), affiliation: '', role: 'client' }, user));
            await refused(71, ca.service.revoke({ enrollmentID: 'admin' }, user));
            await refused(71, ca.service.generateCRL({}, user));
            await refused(71, ca.service.newIdentityService().getAll(user));
            await refused(71, ca.service.newAffiliationService().getAll(user));
        },
    }, {
        name: 'a registrar registers only roles, attributes and affiliations of its own',
        misuse: true,
        run: async () => {
            const { user } = await registered({ affiliation: 'org1.department1', attrs: [{ name: 'hf.Registrar.Roles', value: 'client' }] });
            await ca.service.register({ enrollmentID: newID(), affiliation: 'org1.department1', role: 'client' }, user);
            await refused(71, ca.service.register({ enrollmentID: newID(), affiliation: 'org1.department1', role: 'orderer' }, user));
            await refused(71, ca.service.register({ enrollmentID: newID(), affiliation: 'org1', role: 'client' }, user));
        },
    }, {
        name: 'a request for another one\'s name, for a profile or an attribute that is not there',
        misuse: true,
        run: async () => {
            const { id, secret, user } = await registered();
            const csr = FabricCAServices.newCryptoSuite().generateEphemeralKey().generateCSR('CN=admin');
            await refused(77, ca.service.enroll({ enrollmentID: id, enrollmentSecret: secret, csr }));
            await refused(0, ca.service.enroll({ enrollmentID: id, enrollmentSecret: secret, profile: 'vpn' }));
            await refused(0, ca.service.enroll({ enrollmentID: id, enrollmentSecret: secret, attr_reqs: [{ name: 'missing' }] }));
            await refused(0, ca.service.reenroll(user, [{ name: 'missing' }]));
        },
    }, {
        name: 'revoking twice, and what is not there',
        misuse: true,
        run: async () => {
            const { id } = await registered();
            await ca.service.revoke({ enrollmentID: id }, ca.admin);
            await refused(10, ca.service.revoke({ enrollmentID: newID('nobody') }, ca.admin));
            await refused(8, ca.service.revoke({ serial: 'abcdef', aki: 'abcdef' }, ca.admin));
            await assert.rejects(() => ca.service.revoke({}, ca.admin), /enrollmentId|serial/i);
        },
    }, {
        name: 'removing is off unless it is switched on',
        misuse: true,
        run: async () => {
            const { id } = await registered();
            // The stock client tells a code of the answer within its message only.
            await assert.rejects(ca.service.newIdentityService().delete(id, ca.admin), /Identity removal is disabled|code: 56/);
            await assert.rejects(ca.service.newAffiliationService().delete({ name: 'org1' }, ca.admin), /code: 71, message: 'Authorization failure'/);
            assert.equal((await ca.service.newIdentityService().getOne(id, ca.admin)).result.id, id);
        },
    }, {
        name: 'an authority of another name',
        misuse: true,
        run: async (net) => {
            const { address, tlsRoot } = net.member('org1').ca;
            const other = new FabricCAServices(`https://${address}`, { trustedRoots: [fs.readFileSync(tlsRoot, 'utf8')], verify: true }, 'ca-other');
            await refused(19, other.enroll({ enrollmentID: 'admin', enrollmentSecret: 'x' }));
        },
    }, {
        name: 'tokens that are none, of others, or over something else',
        misuse: true,
        run: async (net) => {
            const path = '/api/v1/identities';
            await refusedRaw(net, 401, 2, 'GET', path);
            await refusedRaw(net, 401, 20, 'GET', path, { headers: { authorization: 'garbage' } });
            // Another member's administrator, with a token that is right in itself.
            const token = async (identity, signedPath) => {
                const certificate = identity.credentials.toString('base64');
                const signed = `GET.${Buffer.from(signedPath).toString('base64')}..${certificate}`;
                const digest = createHash('sha256').update(signed).digest();
                return `${certificate}.${Buffer.from(await identity.signDigest(digest)).toString('base64')}`;
            };
            await refusedRaw(net, 401, 20, 'GET', path, { headers: { authorization: await token(net.user('org2', 'Admin'), path) } });
            await refusedRaw(net, 401, 20, 'GET', path, { headers: { authorization: await token(net.user('org1', 'Admin'), '/api/v1/affiliations') } });
        },
    }, {
        name: 'bodies and methods that are none',
        misuse: true,
        run: async (net) => {
            const headers = { authorization: basic('admin', net.member('org1').ca.secret), 'content-type': 'application/json' };
            await refusedRaw(net, 400, 4, 'POST', '/api/v1/enroll', { headers });
            await refusedRaw(net, 400, 5, 'POST', '/api/v1/enroll', { headers, body: '{' });
            await refusedRaw(net, 405, 1, 'PUT', '/api/v1/enroll', { headers, body: '{}' });
            await refusedRaw(net, 400, 31, 'POST', '/api/v1/enroll', { headers, body: '{"certificate_request":"no request"}' });
        },
    }],
};
