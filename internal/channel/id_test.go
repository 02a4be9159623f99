package channel_test

import (
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/channel"
)

func TestCheckID(t *testing.T) {
	for _, good := range []string{"a", "business", "a.b-c9", strings.Repeat("a", 249)} {
		if err := channel.CheckID(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "cannot be empty", strings.Repeat("a", 250): "cannot be longer than 249",
		"Business": "illegal characters", "9a": "illegal characters", ".": "illegal characters", "..": "illegal characters", "-a": "illegal characters",
		"a/b": "illegal characters", "../a": "illegal characters", "a_b": "illegal characters", "a b": "illegal characters", "a\n": "illegal characters", "ä": "illegal characters",
	} {
		if err := channel.CheckID(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}
