package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Paths and parts of the channel participation API.
const (
	participationBase = "/participation/v1/"
	channelsPath      = participationBase + "channels"
	partBlock         = "config-block"
	partUpdate        = "config-update-envelope"
)

// ChannelInfo is what the participation API tells about a channel.
type ChannelInfo struct {
	Name              string `json:"name"`
	URL               string `json:"url"`
	ConsensusRelation string `json:"consensusRelation"` // "consenter" or "follower"
	Status            string `json:"status"`            // "active", "onboarding", or "failed" once the chain cannot go on
	Height            uint64 `json:"height"`
}

type channelName struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type channelList struct {
	SystemChannel *struct{}     `json:"systemChannel"` // there is none since Fabric 3; osnadmin prints the null
	Channels      []channelName `json:"channels"`
}

// serveConsensus tells how consensus is on a channel, which Fabric's orderers do not.
func (s *Service) serveConsensus(w http.ResponseWriter, r *http.Request) {
	c, ok := s.named(w, r)
	if !ok {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if consensus, ok := c.Consensus(); ok {
		reply(w, http.StatusOK, consensus)
		return
	}
	fail(w, http.StatusNotFound, fmt.Errorf("this orderer takes no part in the consensus of channel %s", c.id))
}

// Participation is the channel participation API, which osnadmin speaks, and beside it /consensus of each channel. Who may reach it is decided by the TLS
// configuration of its server, which must demand client certificates.
func (s *Service) Participation() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+participationBase+"{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, channelsPath, http.StatusFound)
	})
	methods := func(path string, allow []string, handlers map[string]http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			h, ok := handlers[r.Method]
			if !ok {
				notAllowed(w, fmt.Errorf("invalid request method: %s", r.Method), allow...)
				return
			}
			if !acceptsJSON(r) {
				fail(w, http.StatusNotAcceptable, errors.New("response Content-Type is application/json only"))
				return
			}
			h(w, r)
		})
	}
	methods(channelsPath, []string{"GET", "POST", "PUT"}, map[string]http.HandlerFunc{
		"GET": s.serveList, "POST": s.serveJoin, "PUT": s.serveUpdate})
	methods(channelsPath+"/{channel}", []string{"GET", "DELETE"}, map[string]http.HandlerFunc{
		"GET": s.serveInfo, "DELETE": s.serveRemove})
	methods(channelsPath+"/{channel}/consensus", []string{"GET"}, map[string]http.HandlerFunc{
		"GET": s.serveConsensus})
	methods(channelsPath+"/{channel}/blocks/{block}", []string{"GET"}, map[string]http.HandlerFunc{
		"GET": s.serveBlock})
	return mux
}

func (s *Service) info(c *Chain) ChannelInfo {
	relation, status := c.Relation()
	return ChannelInfo{Name: c.id, URL: channelsPath + "/" + c.id, ConsensusRelation: relation, Status: status, Height: c.Height()}
}

func (s *Service) serveList(w http.ResponseWriter, _ *http.Request) {
	list := channelList{}
	for _, id := range s.Channels() {
		list.Channels = append(list.Channels, channelName{id, channelsPath + "/" + id})
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, http.StatusOK, list)
}

// named finds the channel that a path names, or answers that it is none.
func (s *Service) named(w http.ResponseWriter, r *http.Request) (*Chain, bool) {
	id := r.PathValue("channel")
	if err := channel.CheckID(id); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("invalid channel ID: %w", err))
		return nil, false
	}
	c, ok := s.Channel(id)
	if !ok {
		fail(w, http.StatusNotFound, ErrChannelUnknown)
	}
	return c, ok
}

func (s *Service) serveInfo(w http.ResponseWriter, r *http.Request) {
	if c, ok := s.named(w, r); ok {
		w.Header().Set("Cache-Control", "no-store")
		reply(w, http.StatusOK, s.info(c))
	}
}

func (s *Service) serveJoin(w http.ResponseWriter, r *http.Request) {
	b := &commonpb.Block{}
	if !s.readPart(w, r, partBlock, "a block", b) {
		return
	}
	if _, err := s.JoinBlock(b); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("invalid join block: %w", err))
		return
	}
	c, err := s.Join(r.Context(), b)
	if err != nil {
		err = fmt.Errorf("cannot join: %w", err)
		switch {
		case errors.Is(err, ErrChannelExists):
			notAllowed(w, err, "GET", "DELETE")
		case errors.Is(err, ErrChannelChanging):
			fail(w, http.StatusConflict, err)
		default:
			fail(w, http.StatusBadRequest, err)
		}
		return
	}
	s.created(w, c)
}

func (s *Service) created(w http.ResponseWriter, c *Chain) {
	info := s.info(c)
	w.Header().Set("Location", info.URL)
	reply(w, http.StatusCreated, info)
}

func (s *Service) serveRemove(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("channel")
	if err := channel.CheckID(id); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("invalid channel ID: %w", err))
		return
	}
	err := s.Remove(id)
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	code := http.StatusBadRequest
	if errors.Is(err, ErrChannelUnknown) {
		code = http.StatusNotFound
	} else if errors.Is(err, ErrChannelChanging) {
		code = http.StatusConflict
	}
	fail(w, code, fmt.Errorf("cannot remove: %w", err))
}

func (s *Service) serveUpdate(w http.ResponseWriter, r *http.Request) {
	env := &commonpb.Envelope{}
	if !s.readPart(w, r, partUpdate, "an envelope", env) {
		return
	}
	id, err := updatedChannel(env)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("invalid config update envelope: %w", err))
		return
	}
	c, ok := s.Channel(id)
	if !ok {
		fail(w, http.StatusMethodNotAllowed, fmt.Errorf("cannot update: %w", ErrChannelUnknown))
		return
	}
	if err := s.update(r.Context(), c, env); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("cannot update: failed update config of channel %s: %w", id, err))
		return
	}
	s.created(w, c)
}

func (s *Service) update(ctx context.Context, c *Chain, env *commonpb.Envelope) error {
	payload, _, err := header(env)
	if err != nil {
		return err
	}
	sub, rej := c.check(env, payload, true)
	if rej != nil {
		return rej
	}
	return c.await(ctx, sub)
}

// updatedChannel reads from a config update which channel it is for.
func updatedChannel(env *commonpb.Envelope) (string, error) {
	payload, h, err := header(env)
	if err != nil {
		return "", fmt.Errorf("bad header: %w", err)
	}
	if h.Type != int32(commonpb.HeaderType_CONFIG_UPDATE) {
		return "", errors.New("bad type")
	}
	if h.ChannelId == "" {
		return "", errors.New("empty channel id")
	}
	wrapped, update := &commonpb.ConfigUpdateEnvelope{}, &commonpb.ConfigUpdate{}
	if err := proto.Unmarshal(payload.Data, wrapped); err != nil {
		return "", fmt.Errorf("decode config update envelope: %w", err)
	}
	if err := proto.Unmarshal(wrapped.ConfigUpdate, update); err != nil {
		return "", fmt.Errorf("decode config update: %w", err)
	}
	return update.ChannelId, nil
}

func (s *Service) serveBlock(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("block")
	number, err := strconv.ParseUint(id, 10, 63)
	if err != nil && id != "newest" && id != "oldest" && id != "config" {
		fail(w, http.StatusBadRequest, fmt.Errorf("invalid block ID: '%s' not equal <newest|oldest|config|(number)>", id))
		return
	}
	c, ok := s.named(w, r)
	if !ok {
		return
	}
	height := c.Height()
	if height == 0 {
		fail(w, http.StatusNotFound, fmt.Errorf("channel %s has no blocks here yet", c.id))
		return
	}
	newest := height - 1
	switch id {
	case "newest":
		number = newest
	case "oldest":
		number = 0
	case "config":
		b, err := c.Block(newest)
		if err == nil {
			number, err = block.LastConfig(b)
		}
		if err != nil {
			fail(w, http.StatusNotFound, err)
			return
		}
	}
	raw, err := c.BlockBytes(number)
	if err != nil {
		fail(w, http.StatusNotFound, fmt.Errorf("block %d of channel %s: %w", number, c.id, err))
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(raw)
}

// readPart decodes the one file that a multipart request must consist of. If it cannot, it has answered.
func (s *Service) readPart(w http.ResponseWriter, r *http.Request, name, what string, into proto.Message) bool {
	bad := func(err error) bool {
		fail(w, http.StatusBadRequest, err)
		return false
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return bad(fmt.Errorf("unsupported Content-Type: %s", r.Header.Values("Content-Type")))
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return bad(fmt.Errorf("cannot parse Mime media type: %w", err))
	}
	form, err := multipart.NewReader(http.MaxBytesReader(w, r.Body, s.cfg.MaxRequestBytes), params["boundary"]).ReadForm(2 * s.cfg.MaxRequestBytes)
	if err != nil {
		return bad(fmt.Errorf("cannot read form from request body: %w", err))
	}
	defer form.RemoveAll()
	files := form.File[name]
	if len(files) == 0 {
		return bad(fmt.Errorf("form does not contains part key: %s", name))
	}
	if len(form.File) != 1 || len(form.Value) != 0 {
		return bad(errors.New("form contains too many parts"))
	}
	f, err := files[0].Open()
	if err != nil {
		return bad(fmt.Errorf("cannot open file part %s from request body: %w", name, err))
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return bad(fmt.Errorf("cannot read file part %s from request body: %w", name, err))
	}
	if err := proto.Unmarshal(raw, into); err != nil {
		return bad(fmt.Errorf("cannot unmarshal file part %s into %s: %w", name, what, err))
	}
	return true
}

func acceptsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return accept == "" || strings.Contains(accept, "application/json") || strings.Contains(accept, "application/*") || strings.Contains(accept, "*/*")
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func notAllowed(w http.ResponseWriter, err error, allow ...string) {
	w.Header().Set("Allow", strings.Join(allow, ", "))
	fail(w, http.StatusMethodNotAllowed, err)
}

func reply(w http.ResponseWriter, code int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(content)
}
