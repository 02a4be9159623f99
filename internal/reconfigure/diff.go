package reconfigure

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Difference is one thing that an edit changes, for people to read.
type Difference struct {
	Path   string // members.Alpha.anchorPeers
	Before string // empty if it is new
	After  string // empty if it goes
}

// Mark is +, - or ~.
func (d Difference) Mark() string {
	switch {
	case d.Before == "":
		return "+"
	case d.After == "":
		return "-"
	}
	return "~"
}

func (d Difference) String() string {
	switch d.Mark() {
	case "+":
		return fmt.Sprintf("+ %s: %s", d.Path, d.After)
	case "-":
		return fmt.Sprintf("- %s: %s", d.Path, d.Before)
	}
	return fmt.Sprintf("~ %s: %s → %s", d.Path, d.Before, d.After)
}

// Differences says what an update changes: in the words of Document, and by the
// paths of elements what Document does not show.
func (c *Config) Differences(s *Status) ([]Difference, error) {
	return differences(c.ID(), c.base.Config().ChannelGroup, s.Next.Config().ChannelGroup)
}

// DifferencesFrom says what has changed since an older configuration.
func (c *Config) DifferencesFrom(older *Config) ([]Difference, error) {
	return differences(c.ID(), older.base.Config().ChannelGroup, c.base.Config().ChannelGroup)
}

func differences(id string, from, to *commonpb.ConfigGroup) ([]Difference, error) {
	before, err := document(id, from)
	if err != nil {
		return nil, err
	}
	after, err := document(id, to)
	if err != nil {
		return nil, err
	}
	old, err := lines(before)
	if err != nil {
		return nil, err
	}
	next, err := lines(after)
	if err != nil {
		return nil, err
	}
	all := append(compareLines(old, next), unshown(from, to, before, after)...)
	return leavers(all, before, after), nil
}

// leavers tells in one line of each member that leaves.
func leavers(all []Difference, before, after *Document) []Difference {
	for _, m := range before.Members {
		key := m.key()
		if slices.ContainsFunc(after.Members, func(o Member) bool { return o.key() == key }) {
			continue
		}
		of := func(d Difference) bool {
			// The member of the longest name that fits: names may have dots.
			longest := ""
			for _, o := range before.Members {
				if strings.HasPrefix(d.Path, "members."+o.key()+".") && len(o.key()) > len(longest) {
					longest = o.key()
				}
			}
			return longest == key && d.After == ""
		}
		at := slices.IndexFunc(all, of)
		all = slices.DeleteFunc(all, of)
		all = slices.Insert(all, max(at, 0), Difference{Path: "members." + key, Before: m.MSPID})
	}
	return all
}

// key tells the members of a document apart.
func (m Member) key() string {
	if m.OrderingOnly {
		return m.Name + "(orderers)"
	}
	return m.Name
}

// line is one text of a document with the path to it. An element of a list of
// texts is known by path and text, everything else by its path.
type line struct {
	path, text string
	element    bool
}

// lines takes a document apart.
func lines(d *Document) ([]line, error) {
	root := &yaml.Node{}
	if err := root.Encode(d); err != nil {
		return nil, err
	}
	var all []line
	appendLines(&all, "", root, false)
	return all, nil
}

func appendLines(all *[]line, path string, node *yaml.Node, element bool) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			at := node.Content[i].Value
			if element && (at == "name" || at == "host" || at == "port") {
				continue // the path says so
			}
			if path != "" {
				at = path + "." + at
			}
			appendLines(all, at, node.Content[i+1], false)
		}
	case yaml.SequenceNode:
		for _, child := range node.Content {
			if child.Kind == yaml.MappingNode {
				appendLines(all, path+"."+nameOf(child), child, true)
			} else {
				appendLines(all, path, child, true)
			}
		}
	case yaml.ScalarNode:
		text := node.Value
		if isPEM(text) {
			text = certificateName([]byte(text))
		}
		*all = append(*all, line{path, text, element})
	}
}

// nameOf is what tells an entry of a list from the others: its name, or host:port of an orderer.
func nameOf(node *yaml.Node) string {
	fields := map[string]string{}
	for i := 0; i < len(node.Content); i += 2 {
		fields[node.Content[i].Value] = node.Content[i+1].Value
	}
	switch {
	case fields["name"] != "" && fields["orderingOnly"] == "true":
		return fields["name"] + "(orderers)"
	case fields["name"] != "":
		return fields["name"]
	}
	return fields["host"] + ":" + fields["port"]
}

func compareLines(old, next []line) (all []Difference) {
	was, is := byKey(old), byKey(next)
	for _, l := range old {
		if after, stays := is[l.key()]; !stays {
			all = append(all, Difference{Path: l.path, Before: l.text})
		} else if after.text != l.text {
			all = append(all, Difference{l.path, l.text, after.text})
		}
	}
	for _, l := range next {
		if _, known := was[l.key()]; !known {
			all = append(all, Difference{Path: l.path, After: l.text})
		}
	}
	// What belongs together stands together.
	slices.SortStableFunc(all, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func (l line) key() line {
	if !l.element {
		l.text = ""
	}
	return l
}

func byKey(lines []line) map[line]line {
	all := make(map[line]line, len(lines))
	for _, l := range lines {
		all[l.key()] = l
	}
	return all
}

// unshown lists the elements that differ in what a document does not show: who
// may modify them, and values that it has no words for.
func unshown(from, to *commonpb.ConfigGroup, before, after *Document) []Difference {
	u := unshownWalk{}
	u.group(from, shownPart(from, before, after), to, "/"+rootKey)
	return u.all
}

// shownPart is from with everything that the documents show as in after, as far as editing could do that.
func shownPart(from *commonpb.ConfigGroup, before, after *Document) *commonpb.ConfigGroup {
	e := &editor{before: before, after: after, root: proto.CloneOf(from)}
	if e.apply() != nil {
		return from
	}
	return e.root
}

type unshownWalk struct{ all []Difference }

func (u *unshownWalk) add(path, before, after string) {
	if before != after {
		u.all = append(u.all, Difference{path, before, after})
	}
}

// group compares what the group was, what a document makes of it and what it is. One that is new was nil.
func (u *unshownWalk) group(was, shown, is *commonpb.ConfigGroup, path string) {
	u.add(path+" (who may modify it)", modPolicy(was, was != nil), is.GetModPolicy())
	for _, key := range union(was.GetValues(), is.GetValues()) {
		old, had := was.GetValues()[key]
		next, has := is.GetValues()[key]
		at := path + "/" + key
		if !has {
			if valueMessage(key) == nil {
				u.add(at, "a value", "")
			}
			continue
		}
		u.add(at+" (who may modify it)", modPolicy(old, had), next.GetModPolicy())
		if expected, ok := shown.GetValues()[key]; !sameValue(key, expected.GetValue(), next.Value) && (ok || had || valueMessage(key) == nil) {
			text := "something that has no words here"
			switch {
			case !had:
				u.add(at, "", text)
			case !bytes.Equal(old.Value, next.Value):
				u.add(at, "it was", text)
			}
		}
	}
	for _, key := range union(was.GetPolicies(), is.GetPolicies()) {
		old, had := was.GetPolicies()[key]
		next, has := is.GetPolicies()[key]
		if !has {
			continue
		}
		at := path + "/" + key
		u.add(at+" (who may modify it)", modPolicy(old, had), next.GetModPolicy())
		if had && ruleText(old.Policy) == ruleText(next.Policy) && ruleText(old.Policy) != "" && !proto.Equal(old.Policy, next.Policy) {
			u.add(at, "it was", "the same rule, written otherwise")
		}
	}
	for _, key := range union(was.GetGroups(), is.GetGroups()) {
		if next, ok := is.GetGroups()[key]; ok {
			u.group(was.GetGroups()[key], shown.GetGroups()[key], next, path+"/"+key)
		}
	}
}

// modPolicy is an element's; of a new one Admins is expected.
func modPolicy(element interface{ GetModPolicy() string }, exists bool) string {
	if !exists {
		return adminsPolicy
	}
	return element.GetModPolicy()
}

func union[T any](a, b map[string]T) []string {
	return slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, m := range []map[string]T{a, b} {
			for key := range m {
				if !yield(key) {
					return
				}
			}
		}
	}))
}

// valueMessage is the type of the values that documents show; nil for others.
func valueMessage(key string) proto.Message {
	switch key {
	case capabilitiesKey:
		return &commonpb.Capabilities{}
	case addressesKey, endpointsKey:
		return &commonpb.OrdererAddresses{}
	case orderersKey:
		return &commonpb.Orderers{}
	case consensusKey:
		return &ordererpb.ConsensusType{}
	case batchSizeKey:
		return &ordererpb.BatchSize{}
	case batchTimeoutKey:
		return &ordererpb.BatchTimeout{}
	case mspKey:
		return &msppb.MSPConfig{}
	case anchorPeersKey:
		return &peerpb.AnchorPeers{}
	case aclsKey:
		return &peerpb.ACLs{}
	}
	return nil
}

// sameValue says whether two values mean the same, whatever the order of their maps.
func sameValue(key string, a, b []byte) bool {
	left, right := valueMessage(key), valueMessage(key)
	if left == nil || proto.Unmarshal(a, left) != nil || proto.Unmarshal(b, right) != nil {
		return bytes.Equal(a, b)
	}
	return proto.Equal(left, right)
}
