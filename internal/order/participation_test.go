package order_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func form(t *testing.T, part string, content []byte) (string, io.Reader) {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	p, err := w.CreateFormFile(part, "file")
	if err != nil {
		t.Fatal(err)
	}
	p.Write(content)
	w.Close()
	return w.FormDataContentType(), &body
}

func TestParticipation(t *testing.T) {
	n := newNetwork(t)
	o := n.start(t, n.config(t.TempDir()))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: o.clientTLS()}}
	defer client.CloseIdleConnections()
	genesis, _ := proto.Marshal(n.genesis)
	changed := proto.Clone(n.genesis).(*commonpb.Block)
	changed.Header.DataHash = make([]byte, 32)
	badHash, _ := proto.Marshal(changed)
	later := proto.Clone(n.genesis).(*commonpb.Block)
	later.Header.Number = 5
	laterBlock, _ := proto.Marshal(later)
	noConfig, _ := proto.Marshal(block.New(0, nil, [][]byte{[]byte("x")}))
	const base = "/participation/v1/channels"
	for _, tt := range []struct {
		name, method, path, part string
		content                  []byte
		code                     int
		want, allow              string
	}{
		{"empty list", "GET", base, "", nil, 200, `{"systemChannel":null,"channels":null}`, ""},
		{"unknown", "GET", base + "/trade", "", nil, 404, `{"error":"channel does not exist"}`, ""},
		{"bad name", "GET", base + "/Trade", "", nil, 400, "invalid channel ID", ""},
		{"not multipart", "POST", base, "", nil, 400, "unsupported Content-Type", ""},
		{"other part", "POST", base, "block", genesis, 400, "form does not contains part key: config-block", ""},
		{"garbage", "POST", base, "config-block", []byte("garbage"), 400, "cannot unmarshal file part config-block into a block", ""},
		{"no config", "POST", base, "config-block", noConfig, 400, "invalid join block: block is not a config block", ""},
		{"bad hash", "POST", base, "config-block", badHash, 400, "Header.DataHash is different", ""},
		{"later block", "POST", base, "config-block", laterBlock, 400, "cannot join", ""},
		{"too large", "POST", base, "config-block", make([]byte, 2<<20), 400, "cannot read form", ""},
		{"join", "POST", base, "config-block", genesis, 201, `{"name":"trade","url":"/participation/v1/channels/trade","consensusRelation":"consenter","status":"active","height":1}`, ""},
		{"again", "POST", base, "config-block", genesis, 405, "cannot join: channel already exists", "GET, DELETE"},
		{"list", "GET", base, "", nil, 200, `{"systemChannel":null,"channels":[{"name":"trade","url":"/participation/v1/channels/trade"}]}`, ""},
		{"block", "GET", base + "/trade/blocks/newest", "", nil, 200, string(genesis), ""},
		{"config block", "GET", base + "/trade/blocks/config", "", nil, 200, string(genesis), ""},
		{"no block", "GET", base + "/trade/blocks/7", "", nil, 404, "error", ""},
		{"bad block", "GET", base + "/trade/blocks/first", "", nil, 400, "not equal", ""},
		{"bad update", "PUT", base, "config-update-envelope", []byte{}, 400, "invalid config update envelope", ""},
		{"method", "PATCH", base, "", nil, 405, "invalid request method: PATCH", "GET, POST, PUT"},
		{"channel method", "POST", base + "/trade", "", nil, 405, "invalid request method: POST", "GET, DELETE"},
		{"block method", "DELETE", base + "/trade/blocks/0", "", nil, 405, "invalid request method: DELETE", "GET"},
		{"remove", "DELETE", base + "/trade", "", nil, 204, "", ""},
		{"remove again", "DELETE", base + "/trade", "", nil, 404, "cannot remove: channel does not exist", ""},
		{"rejoin", "POST", base, "config-block", genesis, 201, `"height":1`, ""},
	} {
		var body io.Reader
		contentType := ""
		if tt.part != "" {
			contentType, body = form(t, tt.part, tt.content)
		}
		req, err := http.NewRequest(tt.method, "https://"+o.admin+tt.path, body)
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.code || !strings.Contains(string(got), tt.want) || resp.Header.Get("Allow") != tt.allow {
			t.Errorf("%s: %d %.300q allow %q (%v), want %d %.300q", tt.name, resp.StatusCode, got, resp.Header.Get("Allow"), err, tt.code, tt.want)
		}
	}
	if r := o.broadcast(t, message(t, n.user, channelID, "x")); r.Status != commonpb.Status_SUCCESS {
		t.Error(r)
	}
}
