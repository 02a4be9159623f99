package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/internal/order"
)

// Admin calls the channel participation API of one orderer, on its admin port.
type Admin struct {
	Address string       // host:port of the admin port
	Client  *http.Client // with a certificate that the orderer accepts
}

// ErrNotJoined says that an orderer does not have the channel.
var ErrNotJoined = errors.New("it has not joined the channel")

const askTimeout = 3 * time.Second

func (a Admin) call(ctx context.Context, method, path, contentType string, body io.Reader, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+a.Address+"/participation/v1/channels"+path, body)
	if err != nil {
		return err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.Client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusNotFound:
		return ErrNotJoined
	case response.StatusCode >= 300:
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(raw, &said) != nil || said.Error == "" {
			said.Error = string(raw)
		}
		return fmt.Errorf("%s: %s", response.Status, said.Error)
	case into == nil:
		return nil
	}
	return json.Unmarshal(raw, into)
}

// Info tells how the orderer is on a channel.
func (a Admin) Info(ctx context.Context, channelID string) (*order.ChannelInfo, error) {
	info := &order.ChannelInfo{}
	return info, a.call(ctx, http.MethodGet, "/"+channelID, "", nil, info)
}

// consensus tells how the orderer sees consensus; nil if it takes no part, or is none that tells.
func (a Admin) consensus(ctx context.Context, channelID string) *order.Consensus {
	c := &order.Consensus{}
	if a.call(ctx, http.MethodGet, "/"+channelID+"/consensus", "", nil, c) != nil || len(c.Members) == 0 {
		return nil
	}
	return c
}

// Join has the orderer join a channel by one of its config blocks.
func (a Admin) Join(ctx context.Context, configBlock []byte) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("config-block", "config.block")
	if err == nil {
		_, err = part.Write(configBlock)
	}
	if err = errors.Join(err, form.Close()); err != nil {
		return err
	}
	return a.call(ctx, http.MethodPost, "", form.FormDataContentType(), &body, nil)
}

// unreachable is the state of an orderer that says nothing about itself.
const unreachable = "cannot be reached"

// unheard is the state of one that runs and that the leader does not hear from: for a moment, if it has just started.
const unheard = "runs, but the leader does not hear from it"

// look finds out how the consenters are. Who takes part is what the leader says, if any orderer that is asked by its admin
// port leads; otherwise who answers. An orderer that says itself that it does not take part is believed: the leader hears
// from one for an election timeout after its end.
func (o *Operator) look(ctx context.Context, addresses []string) (Service, bool) {
	s := make(Service, len(addresses))
	views := make([]*order.Consensus, len(addresses))
	var group sync.WaitGroup
	for i, address := range addresses {
		group.Go(func() { s[i], views[i] = o.ask(ctx, address) })
	}
	group.Wait()
	var leader *order.Consensus
	for _, v := range views {
		if v != nil && v.Leader == v.Self && (leader == nil || v.Term > leader.Term) {
			leader = v
		}
	}
	if leader == nil {
		return s, false
	}
	heard := map[string]bool{}
	for _, m := range leader.Members {
		heard[m.Address] = m.Active
		for i := range s {
			if s[i].Address == m.Address && m.ID == leader.Leader {
				s[i].Leader = true
			}
		}
	}
	for i := range s {
		m := &s[i]
		m.Live = heard[m.Address] && (m.Live || m.State == unreachable)
		switch {
		case m.Leader:
			m.State = "leads"
		case m.Live:
			m.State = "takes part"
		case m.State == "answers":
			m.State = unheard
		}
	}
	return s, true
}

// ask asks one consenter how it is.
func (o *Operator) ask(ctx context.Context, address string) (Member, *order.Consensus) {
	m := Member{Address: address, State: unreachable}
	admin, ok := o.Admin(address)
	if !ok {
		height, err := o.Height(ctx, address)
		if err == nil {
			m.Live, m.Height, m.State = true, height, "answers"
		}
		return m, nil
	}
	info, err := admin.Info(ctx, o.Channel)
	switch {
	case errors.Is(err, ErrNotJoined):
		m.State = "runs without the channel: it has lost its data, or never had it"
		return m, nil
	case err != nil:
		return m, nil
	}
	m.Height, m.State = info.Height, "answers"
	switch {
	case info.Status == "inactive":
		m.State = "has lost its consensus log, so that it may not take part"
	case info.ConsensusRelation != "consenter":
		m.State = "runs and only follows (" + info.Status + ")"
	default:
		m.Live = true // as far as it knows itself
	}
	if !m.Live {
		return m, nil
	}
	return m, admin.consensus(ctx, o.Channel)
}
