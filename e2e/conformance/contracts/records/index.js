'use strict';

const { RecordsContract } = require('./records');

module.exports.contracts = [RecordsContract];
