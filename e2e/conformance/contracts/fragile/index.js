'use strict';

module.exports = require('../basic');
