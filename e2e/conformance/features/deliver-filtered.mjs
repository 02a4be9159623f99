import { deliverFeature } from './deliver.mjs';

export default deliverFeature('org2', 'deliverFiltered', 'DeliverFiltered of a peer', '`protos.Deliver/DeliverFiltered`: all forms of seeking');
