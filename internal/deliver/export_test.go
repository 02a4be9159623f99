package deliver

import (
	"context"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// The decoders of outside bytes, for fuzz tests.
var WithoutData = withoutData

func Parse(s *Server, env *commonpb.Envelope) error {
	_, err := s.parse(context.Background(), env)
	return err
}
