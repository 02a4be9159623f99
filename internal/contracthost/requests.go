package contracthost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/protobuf/proto"
)

// call is an Invocation that runs. All but inbox and broken belongs to the goroutine that made it.
type call struct {
	*Invocation
	limits *Config

	inbox   chan *peerpb.ChaincodeMessage
	broken  chan struct{} // closed when the inbox overflowed
	flooded sync.Once

	queries map[string]*query
	issued  int // ids of queries
}

func isRequest(t peerpb.ChaincodeMessage_Type) bool {
	switch t {
	case peerpb.ChaincodeMessage_GET_STATE, peerpb.ChaincodeMessage_PUT_STATE, peerpb.ChaincodeMessage_DEL_STATE,
		peerpb.ChaincodeMessage_INVOKE_CHAINCODE, peerpb.ChaincodeMessage_GET_STATE_BY_RANGE, peerpb.ChaincodeMessage_GET_QUERY_RESULT,
		peerpb.ChaincodeMessage_QUERY_STATE_NEXT, peerpb.ChaincodeMessage_QUERY_STATE_CLOSE, peerpb.ChaincodeMessage_GET_HISTORY_FOR_KEY,
		peerpb.ChaincodeMessage_GET_STATE_METADATA, peerpb.ChaincodeMessage_PUT_STATE_METADATA, peerpb.ChaincodeMessage_GET_PRIVATE_DATA_HASH,
		peerpb.ChaincodeMessage_PURGE_PRIVATE_DATA, peerpb.ChaincodeMessage_WRITE_BATCH_STATE, peerpb.ChaincodeMessage_GET_STATE_MULTIPLE:
		return true
	}
	return false
}

var (
	errPrivateInInit = errors.New("private data APIs are not allowed in chaincode Init()")
	errOnlyPrivate   = errors.New("only applicable for private data")
)

// serve does what a contract asks for and gives the message to answer with.
func (c *call) serve(ctx context.Context, m *peerpb.ChaincodeMessage) *peerpb.ChaincodeMessage {
	payload, err := c.request(ctx, m)
	if err != nil {
		return failure(m, err)
	}
	return &peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_RESPONSE, Payload: payload, Txid: m.Txid, ChannelId: m.ChannelId}
}

func failure(m *peerpb.ChaincodeMessage, err error) *peerpb.ChaincodeMessage {
	text := fmt.Sprintf("%s failed: transaction ID: %s: %v", m.Type, m.Txid, err)
	return &peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_ERROR, Payload: []byte(text), Txid: m.Txid, ChannelId: m.ChannelId}
}

func decode(m *peerpb.ChaincodeMessage, into proto.Message) error {
	if err := proto.Unmarshal(m.Payload, into); err != nil {
		return fmt.Errorf("unmarshal failed: %w", err)
	}
	return nil
}

func (c *call) request(ctx context.Context, m *peerpb.ChaincodeMessage) ([]byte, error) {
	switch m.Type {
	case peerpb.ChaincodeMessage_GET_STATE:
		var r peerpb.GetState
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		if err := c.mayUse(r.Collection); err != nil {
			return nil, err
		}
		return c.Backend.Get(r.Collection, r.Key)

	case peerpb.ChaincodeMessage_GET_STATE_MULTIPLE:
		var r peerpb.GetStateMultiple
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		if err := c.mayUse(r.Collection); err != nil {
			return nil, err
		}
		values, err := c.Backend.GetMany(r.Collection, r.Keys)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(&peerpb.GetStateMultipleResult{Values: values})

	case peerpb.ChaincodeMessage_GET_PRIVATE_DATA_HASH:
		var r peerpb.GetState
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		if c.Input.IsInit {
			return nil, errPrivateInInit
		}
		return c.Backend.GetHash(r.Collection, r.Key)

	case peerpb.ChaincodeMessage_PUT_STATE:
		var r peerpb.PutState
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return nil, c.put(r.Collection, r.Key, r.Value)

	case peerpb.ChaincodeMessage_DEL_STATE:
		var r peerpb.DelState
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return nil, c.delete(r.Collection, r.Key)

	case peerpb.ChaincodeMessage_PURGE_PRIVATE_DATA:
		var r peerpb.DelState // as Fabric's shims send it; PurgePrivateState has the same fields
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return nil, c.purge(r.Collection, r.Key)

	case peerpb.ChaincodeMessage_WRITE_BATCH_STATE:
		var r peerpb.WriteBatchState
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return nil, c.writeBatch(r.Rec)

	case peerpb.ChaincodeMessage_GET_STATE_METADATA:
		var r peerpb.GetStateMetadata
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return c.metadata(r.Collection, r.Key)

	case peerpb.ChaincodeMessage_PUT_STATE_METADATA:
		var r peerpb.PutStateMetadata
		if err := decode(m, &r); err != nil {
			return nil, err
		}
		return nil, c.putMetadata(r.Collection, r.Key, r.Metadata)

	case peerpb.ChaincodeMessage_GET_STATE_BY_RANGE:
		return c.rangeQuery(m)
	case peerpb.ChaincodeMessage_GET_QUERY_RESULT:
		return c.richQuery(ctx, m)
	case peerpb.ChaincodeMessage_GET_HISTORY_FOR_KEY:
		return c.historyQuery(m)
	case peerpb.ChaincodeMessage_QUERY_STATE_NEXT:
		return c.nextResults(m)
	case peerpb.ChaincodeMessage_QUERY_STATE_CLOSE:
		return c.closeQuery(m)
	default: // INVOKE_CHAINCODE: dispatch lets nothing else through
		return c.invoke(ctx, m)
	}
}

// mayUse keeps contracts from private data while they initialize: the peers that run the initialization need not be members.
func (c *call) mayUse(collection string) error {
	if collection != "" && c.Input.IsInit {
		return errPrivateInInit
	}
	return nil
}

func (c *call) put(collection, key string, value []byte) error {
	if err := c.mayUse(collection); err != nil {
		return err
	}
	return c.Backend.Put(collection, key, value)
}

func (c *call) delete(collection, key string) error {
	if err := c.mayUse(collection); err != nil {
		return err
	}
	return c.Backend.Delete(collection, key)
}

func (c *call) purge(collection, key string) error {
	if collection == "" {
		return errOnlyPrivate
	}
	if err := c.mayUse(collection); err != nil {
		return err
	}
	return c.Backend.Purge(collection, key)
}

func (c *call) putMetadata(collection, key string, entry *peerpb.StateMetadata) error {
	if entry == nil {
		return errors.New("metadata is missing")
	}
	if err := c.mayUse(collection); err != nil {
		return err
	}
	return c.Backend.PutMetadata(collection, key, entry.Metakey, entry.Value)
}

func (c *call) writeBatch(records []*peerpb.WriteRecord) error {
	for _, r := range records {
		var err error
		switch r.Type {
		case peerpb.WriteRecord_PUT_STATE:
			err = c.put(r.Collection, r.Key, r.Value)
		case peerpb.WriteRecord_DEL_STATE:
			err = c.delete(r.Collection, r.Key)
		case peerpb.WriteRecord_PURGE_PRIVATE_DATA:
			err = c.purge(r.Collection, r.Key)
		case peerpb.WriteRecord_PUT_STATE_METADATA:
			err = c.putMetadata(r.Collection, r.Key, r.Metadata)
		default:
			err = errors.New("unknown operation type")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *call) metadata(collection, key string) ([]byte, error) {
	if err := c.mayUse(collection); err != nil {
		return nil, err
	}
	metadata, err := c.Backend.Metadata(collection, key)
	if err != nil {
		return nil, err
	}
	result := &peerpb.StateMetadataResult{}
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		result.Entries = append(result.Entries, &peerpb.StateMetadata{Metakey: name, Value: metadata[name]})
	}
	return proto.Marshal(result)
}

// invoke calls another contract. The answer is the callee's last message, whole: the shims take it apart.
func (c *call) invoke(ctx context.Context, m *peerpb.ChaincodeMessage) ([]byte, error) {
	var spec peerpb.ChaincodeSpec
	if err := decode(m, &spec); err != nil {
		return nil, err
	}
	// "name:version/channel"; versions are not chosen by callers any more.
	name, channel, _ := strings.Cut(spec.GetChaincodeId().GetName(), "/")
	name, _, _ = strings.Cut(name, ":")
	if name == "" {
		return nil, errors.New("the name of the chaincode to invoke is empty")
	}
	if channel == "" {
		channel = c.ChannelID
	}
	input := spec.Input
	if input == nil {
		input = &peerpb.ChaincodeInput{}
	}
	if input.IsInit {
		return nil, errors.New("execute failed: a contract cannot initialize another one")
	}
	answer := &peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_COMPLETED, Txid: m.Txid, ChannelId: channel}
	response, err := c.Backend.Invoke(ctx, name, channel, input)
	var failed *ContractError
	switch {
	case errors.As(err, &failed):
		answer.Type, answer.Payload = peerpb.ChaincodeMessage_ERROR, failed.Message
	case err != nil:
		return nil, fmt.Errorf("execute failed: %w", err)
	case response == nil:
		return nil, errors.New("execute failed: the contract gave no response")
	default:
		if answer.Payload, err = proto.Marshal(response); err != nil {
			return nil, fmt.Errorf("marshal failed: %w", err)
		}
	}
	return proto.Marshal(answer)
}
