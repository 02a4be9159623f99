// Drives the stock fabric-ca-client through the life of identities at a certificate authority.
//
//   HANSA_CA='{"url":..., "caName":..., "roots":[pem...], "ski":hex}' node client.mjs
//
// Prints one line per step; the first failed expectation ends it with a non-zero status.
import assert from 'node:assert/strict';
import {X509Certificate} from 'node:crypto';
import FabricCAServices from 'fabric-ca-client';
import {User} from 'fabric-common';

const {url, caName, roots, ski} = JSON.parse(process.env.HANSA_CA);
const suite = FabricCAServices.newCryptoSuite();
suite.setCryptoKeyStore(FabricCAServices.newCryptoKeyStore()); // in memory
const ca = new FabricCAServices(url, {trustedRoots: roots, verify: true}, caName, suite);

async function step(name, run) {
	await run();
	console.log('ok', name);
}

async function userOf(enrollmentID, {key, certificate}) {
	const user = new User(enrollmentID);
	user.setCryptoSuite(suite);
	await user.setEnrollment(key, certificate, 'Org1MSP', true);
	return user;
}

async function enroll(enrollmentID, enrollmentSecret, more = {}) {
	const enrollment = await ca.enroll({enrollmentID, enrollmentSecret, ...more});
	enrollment.x509 = new X509Certificate(enrollment.certificate);
	enrollment.user = await userOf(enrollmentID, enrollment);
	return enrollment;
}

// refused expects the client to fail with this code in the server's answer.
async function refused(code, call) {
	await assert.rejects(call, (err) => {
		assert.equal(err.success, false, `no answer of the server: ${err}`);
		assert.equal(err.errors[0].code, code, `answered ${JSON.stringify(err.errors)}`);
		return true;
	});
}

// attributes reads the extension 1.2.3.4.5.6.7.8.1 by its text: it is the only JSON in the certificate.
function attributes(x509) {
	const text = x509.raw.toString('latin1');
	const start = text.indexOf('{"attrs":');
	return start < 0 ? {} : JSON.parse(text.slice(start, text.indexOf('}}', start) + 2)).attrs;
}

const hex = (s) => s.toLowerCase();
let admin;

await step('enroll the registrar', async () => {
	const e = await enroll('admin', 'adminpw');
	admin = e.user;
	assert.match(e.x509.subject, /OU=client/);
	assert.ok(e.x509.verify(new X509Certificate(e.rootCertificate).publicKey), 'signed by the chain that came along');
	assert.equal(attributes(e.x509)['hf.EnrollmentID'], 'admin');
});

await step('cainfo', async () => {
	const info = await ca.getCaInfo(admin);
	assert.equal(info.caName, caName);
	assert.match(info.caChain, /BEGIN CERTIFICATE/);
	assert.ok(info.version);
});

await step('wrong password', () => refused(20, () => ca.enroll({enrollmentID: 'admin', enrollmentSecret: 'guess'})));

await step('unknown identity', () => refused(20, () => ca.enroll({enrollmentID: 'nobody', enrollmentSecret: 'guess'})));

let carol;
await step('register, enroll with attributes', async () => {
	const secret = await ca.register({
		enrollmentID: 'carol', role: 'client', affiliation: 'org1.department1', maxEnrollments: -1,
		attrs: [{name: 'email', value: 'carol@example.com', ecert: true}, {name: 'grade', value: '7'}],
	}, admin);
	assert.ok(secret.length >= 12);
	carol = await enroll('carol', secret);
	assert.deepEqual(attributes(carol.x509), {email: 'carol@example.com', 'hf.Affiliation': 'org1.department1', 'hf.EnrollmentID': 'carol', 'hf.Type': 'client'});
	for (const ou of ['client', 'org1', 'department1']) {
		assert.match(carol.x509.subject, new RegExp(`OU=${ou}`));
	}
	const asked = await enroll('carol', secret, {attr_reqs: [{name: 'grade'}, {name: 'missing', optional: true}]});
	assert.deepEqual(attributes(asked.x509), {grade: '7'});
	await refused(0, () => ca.enroll({enrollmentID: 'carol', enrollmentSecret: secret, attr_reqs: [{name: 'missing'}]}));
});

await step('the secret is used up', async () => {
	await ca.register({enrollmentID: 'once', enrollmentSecret: 'oncepw', affiliation: 'org1', role: 'client'}, admin);
	await enroll('once', 'oncepw');
	await refused(20, () => ca.enroll({enrollmentID: 'once', enrollmentSecret: 'oncepw'}));
});

await step('profile tls with hosts in the request', async () => {
	await ca.register({enrollmentID: 'peer0', enrollmentSecret: 'peerpw', role: 'peer', affiliation: 'org1', maxEnrollments: 2}, admin);
	const key = suite.generateEphemeralKey();
	const csr = key.generateCSR('CN=peer0', [{subjectAltName: {array: [{dns: 'peer0.example.com'}, {ip: '127.0.0.1'}]}}]);
	const {certificate} = await ca.enroll({enrollmentID: 'peer0', enrollmentSecret: 'peerpw', profile: 'tls', csr});
	const x509 = new X509Certificate(certificate);
	assert.equal(x509.checkHost('peer0.example.com'), 'peer0.example.com');
	assert.deepEqual([...x509.keyUsage].sort(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
	assert.match(x509.subject, /OU=peer/);
	await refused(77, () => ca.enroll({enrollmentID: 'peer0', enrollmentSecret: 'peerpw', csr: key.generateCSR('CN=peer1')}));
	await refused(0, () => ca.enroll({enrollmentID: 'peer0', enrollmentSecret: 'peerpw', profile: 'vpn', csr}));
});

await step('reenroll', async () => {
	await ca.register({enrollmentID: 'dave', enrollmentSecret: 'davepw', role: 'client', affiliation: '.'}, admin);
	const dave = await enroll('dave', 'davepw');
	const again = await ca.reenroll(dave.user);
	const x509 = new X509Certificate(again.certificate);
	assert.notEqual(x509.serialNumber, dave.x509.serialNumber);
	await refused(0, () => ca.reenroll(dave.user, [{name: 'missing'}]));
	await ca.reenroll(carol.user); // whose subject has several organizational units
});

await step('register without the rights', async () => {
	await refused(71, () => ca.register({enrollmentID: 'x', affiliation: 'org1', role: 'client'}, carol.user));
	await refused(71, () => ca.newIdentityService().getAll(carol.user));
	await refused(71, () => ca.generateCRL({}, carol.user));
	await refused(71, () => ca.revoke({enrollmentID: 'admin'}, carol.user));
});

await step('register what cannot be', async () => {
	await refused(74, () => ca.register({enrollmentID: 'carol', affiliation: 'org1', role: 'client'}, admin));
	await refused(16, () => ca.register({enrollmentID: 'x', affiliation: 'org9', role: 'client'}, admin));
});

await step('a registrar within its affiliation', async () => {
	const secret = await ca.register({
		enrollmentID: 'clerk', affiliation: 'org1', role: 'client', maxEnrollments: -1,
		attrs: [{name: 'hf.Registrar.Roles', value: 'client'}, {name: 'hf.Revoker', value: 'true'}],
	}, admin);
	const clerk = (await enroll('clerk', secret)).user;
	await ca.register({enrollmentID: 'by-clerk', affiliation: 'org1.department2', role: 'client'}, clerk);
	await refused(71, () => ca.register({enrollmentID: 'y', affiliation: 'org2', role: 'client'}, clerk));
	await refused(71, () => ca.register({enrollmentID: 'y', affiliation: 'org1', role: 'orderer'}, clerk));
	await refused(71, () => ca.revoke({enrollmentID: 'admin'}, clerk));
	await ca.revoke({enrollmentID: 'by-clerk'}, clerk);
});

await step('identities', async () => {
	const service = ca.newIdentityService();
	const secret = await service.create({enrollmentID: 'erin', affiliation: 'org1', type: 'client', maxEnrollments: 5, caname: caName,
		attrs: [{name: 'a', value: '1'}]}, admin);
	assert.ok(secret);
	const {result: one} = await service.getOne('erin', admin);
	assert.equal(one.max_enrollments, 5);
	assert.equal(one.caname, caName);
	const {result: changed} = await service.update('erin', {affiliation: 'org2', enrollmentSecret: 'new', attrs: [{name: 'a', value: '2'}]}, admin);
	assert.equal(changed.affiliation, 'org2');
	assert.equal(changed.attrs.find((a) => a.name === 'a').value, '2');
	await enroll('erin', 'new');
	const {result: all} = await service.getAll(admin);
	assert.ok(all.identities.length >= 6 && all.identities.some((i) => i.id === 'carol'));
	await refused(63, () => service.getOne('nobody', admin));
	await refused(56, () => service.delete('admin', admin));
	await service.delete('erin', admin);
	await refused(63, () => service.getOne('erin', admin));
});

await step('affiliations', async () => {
	const service = ca.newAffiliationService();
	await service.create({name: 'org3'}, admin);
	await service.create({name: 'org4.a.b', force: true}, admin);
	await refused(60, () => service.create({name: 'org5.a'}, admin));
	await refused(60, () => service.create({name: 'org3'}, admin));
	const {result: one} = await service.getOne('org4', admin);
	assert.equal(one.affiliations[0].affiliations[0].name, 'org4.a.b');
	const {result: all} = await service.getAll(admin);
	assert.ok(all.affiliations.some((a) => a.name === 'org3'));
	await service.update('org3', {name: 'org6'}, admin);
	await refused(63, () => service.getOne('org3', admin));
	await refused(71, () => service.delete({name: 'org4'}, admin));
	await service.delete({name: 'org4', force: true}, admin);
	await refused(71, () => service.getAll(carol.user));
});

await step('certificates', async () => {
	const service = ca.newCertificateService();
	const {result} = await service.getCertificates({id: 'carol'}, admin);
	assert.equal(result.certs.length, 3);
	const {result: one} = await service.getCertificates({serial: carol.x509.serialNumber, notrevoked: true, notexpired: true}, admin);
	assert.equal(new X509Certificate(one.certs[0].PEM).serialNumber, carol.x509.serialNumber);
});

await step('revoke one certificate, by serial number and key identifier', async () => {
	const {result} = await ca.revoke({serial: hex(carol.x509.serialNumber), aki: ski, reason: 'keycompromise', gencrl: true}, admin);
	assert.equal(result.RevokedCerts.length, 1);
	assert.match(Buffer.from(result.CRL, 'base64').toString(), /BEGIN X509 CRL/);
	await refused(20, () => ca.reenroll(carol.user));
	await refused(66, () => ca.revoke({serial: hex(carol.x509.serialNumber), aki: ski}, admin));
});

await step('revoke an identity', async () => {
	await ca.register({enrollmentID: 'frank', enrollmentSecret: 'pw', affiliation: 'org1', role: 'client', maxEnrollments: -1}, admin);
	const frank = await enroll('frank', 'pw');
	const {result} = await ca.revoke({enrollmentID: 'frank', reason: 'cessationofoperation'}, admin);
	assert.equal(result.RevokedCerts.length, 1);
	await refused(20, () => ca.reenroll(frank.user));
	await refused(20, () => ca.enroll({enrollmentID: 'frank', enrollmentSecret: 'pw'}));
	await refused(10, () => ca.revoke({enrollmentID: 'nobody'}, admin));
});

await step('gencrl', async () => {
	const all = await ca.generateCRL({}, admin);
	const none = await ca.generateCRL({revokedAfter: new Date(Date.now() + 3600e3)}, admin);
	assert.ok(all.length > none.length);
	await refused(36, () => ca.generateCRL({revokedAfter: new Date(), revokedBefore: new Date(Date.now() - 1000)}, admin));
});

await step('another authority', () => {
	const other = new FabricCAServices(url, {trustedRoots: roots, verify: true}, 'ca-other', suite);
	return refused(19, () => other.enroll({enrollmentID: 'admin', enrollmentSecret: 'adminpw'}));
});

await step('no name of the authority', async () => {
	const unnamed = new FabricCAServices(url, {trustedRoots: roots, verify: true}, undefined, suite);
	await unnamed.enroll({enrollmentID: 'admin', enrollmentSecret: 'adminpw'});
	await unnamed.newIdentityService().getOne('admin', admin);
});
