package channel

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Change is an element that an update changes or adds.
type Change struct {
	Kind string // group, value or policy
	Path string // /Channel/Application/Alpha/AnchorPeers
	// Policy is the path of the policy that those who sign the update must
	// satisfy. Empty for a new element: its group asks for the signatures.
	Policy string
}

// Preview tells what would come of an update if everybody signed it: the
// configuration after it, and what it changes, with the policies that decide. It
// comes to all verdicts of ProposeUpdateAt except those about signatures.
func (b *Bundle) Preview(update *commonpb.ConfigUpdate, now time.Time) (*Bundle, []Change, error) {
	if b.orderer == nil {
		return nil, nil, fmt.Errorf("the configuration of channel %s has no Orderer group, so no orderer can change it", b.id)
	}
	raw, err := proto.Marshal(update)
	if err != nil {
		return nil, nil, err
	}
	env, d := &commonpb.ConfigUpdateEnvelope{ConfigUpdate: raw}, &delta{bundle: b, preview: true}
	group, err := b.apply(env, d)
	if err != nil {
		return nil, nil, err
	}
	next, err := b.follow(group, env, now)
	return next, d.changes, err
}

func kindName(kind string) string {
	switch kind {
	case groupElement:
		return "group"
	case valueElement:
		return "value"
	}
	return "policy"
}

// versionError is an update that does not fit the versions in force.
type versionError string

func (e versionError) Error() string { return string(e) }

// IsVersionError says whether an update was refused because it was made for other
// versions of the elements that it reads or writes: for an older configuration.
func IsVersionError(err error) bool {
	var e versionError
	return errors.As(err, &e)
}

// absolute is the path of the policy that a mod_policy in a group names.
func absolute(modPolicy string, group *path) string {
	if modPolicy[0] == '/' {
		return modPolicy
	}
	return group.String() + "/" + modPolicy
}
