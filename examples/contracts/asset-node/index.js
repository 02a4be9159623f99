'use strict';

const { AssetContract } = require('./asset');

module.exports.contracts = [AssetContract];
