import { deliverFeature } from './deliver.mjs';

export default deliverFeature('orderer', 'deliver', 'Deliver of the orderer', '`orderer.AtomicBroadcast/Deliver`, as `peer channel fetch` calls it: all forms of seeking');
