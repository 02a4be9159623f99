package node

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLogSpec(t *testing.T) {
	level := &slog.LevelVar{}
	s := &logSpec{level: level}
	call := func(method, body string) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, "/logspec", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if code, body := call("GET", ""); code != http.StatusOK || body != "{\"spec\":\"info\"}\n" {
		t.Errorf("at first %d %s", code, body)
	}
	for spec, want := range map[string]struct {
		told  string
		level slog.Level
	}{
		"debug":                         {"debug", slog.LevelDebug},
		"":                              {"info", slog.LevelInfo},
		"WARNING":                       {"warn", slog.LevelWarn},
		"fatal":                         {"fatal", slog.LevelError},
		"gossip=debug:error":            {"gossip=debug:error", slog.LevelError},
		"b,a.c.=warning":                {"a.c.=warn:b=warn:info", slog.LevelInfo},
		"peer.chaincode=debug:critical": {"peer.chaincode=debug:error", slog.LevelError},
	} {
		if code, body := call("PUT", `{"spec":"`+spec+`"}`); code != http.StatusNoContent {
			t.Errorf("%q: %d %s", spec, code, body)
		}
		if s.String() != want.told || level.Level() != want.level {
			t.Errorf("%q: %s, level %v", spec, s, level)
		}
	}
	level.Set(slog.LevelWarn)
	for body, want := range map[string]string{
		`{"spec":"loud"}`:         "invalid logging specification 'loud': bad segment 'loud'",
		`{"spec":"debug:a=loud"}`: "bad segment 'a=loud'",
		`{"spec":"a=b=debug"}`:    "bad segment 'a=b=debug'",
		`{"spec":"a="}`:           "bad segment 'a='",
		`{"spec":"=debug"}`:       "no logger specified in segment '=debug'",
		`{"spec":"a..b=debug"}`:   "bad logger name 'a..b'",
		`{"spec":`:                "unexpected EOF",
		`{"spec":"` + strings.Repeat("a", maxLogSpec) + `"}`: "too large",
	} {
		if code, answer := call("PUT", body); code != http.StatusBadRequest || !strings.Contains(answer, want) || level.Level() != slog.LevelWarn {
			t.Errorf("%.40s: %d %s, level %v", body, code, answer, level)
		}
	}
	if code, body := call("POST", "{}"); code != http.StatusBadRequest || !strings.Contains(body, "invalid request method: POST") {
		t.Errorf("POST: %d %s", code, body)
	}
}
