package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// The language, as Fabric's command line reads it:
//
//	policy    = gate
//	gate      = ("AND" | "And" | "and" | "OR" | "Or" | "or") "(" item {"," item} ")"
//	          | ("OutOf" | "OUTOF" | "outof") "(" number "," item {"," item} ")"
//	item      = gate | "'" MSPID "." role "'" | '"' MSPID "." role '"'
//	role      = "member" | "admin" | "client" | "peer" | "orderer"
//
// Fabric's own parser takes the lower-case "and" and "or" for operators and refuses them; they are harmless.
// An MSP id here is made of letters, digits, '.' and '-' only: one with '_' works in a channel but cannot be written down.
const (
	maxTextLength = 64 << 10
	maxTextDepth  = 100
)

var (
	principalText = regexp.MustCompile(`^([[:alnum:].-]+)\.(admin|member|client|peer|orderer)$`)
	roles         = map[string]msppb.MSPRole_MSPRoleType{
		"member": msppb.MSPRole_MEMBER, "admin": msppb.MSPRole_ADMIN, "client": msppb.MSPRole_CLIENT,
		"peer": msppb.MSPRole_PEER, "orderer": msppb.MSPRole_ORDERER,
	}
)

// Parse reads a policy such as AND('Org1MSP.peer', OutOf(1, 'Org2MSP.peer', 'Org3MSP.admin')). The envelope is the one that
// Fabric's own parser makes, byte for byte once encoded: principals are not shared, and those of nested gates are numbered first.
func Parse(text string) (*commonpb.SignaturePolicyEnvelope, error) {
	if len(text) > maxTextLength {
		return nil, fmt.Errorf("policy text has %d bytes, at most %d are accepted", len(text), maxTextLength)
	}
	p := &parser{text: text}
	p.space()
	gate, err := p.item(0)
	if err == nil {
		p.space()
		switch {
		case p.at < len(p.text):
			err = p.unexpected("the end")
		case gate.principal != "":
			err = fmt.Errorf("invalid policy string '%s': want a gate, such as OR('%s')", text, gate.principal)
		}
	}
	if err != nil {
		return nil, err
	}
	env := &commonpb.SignaturePolicyEnvelope{}
	env.Rule = gate.build(env)
	return env, nil
}

// node is a parsed gate, or a principal.
type node struct {
	principal, mspID string
	role             msppb.MSPRole_MSPRoleType
	n                int32
	items            []node
}

// build numbers the principals of nested gates before the gate's own: Fabric evaluates the text as nested function calls.
func (n *node) build(env *commonpb.SignaturePolicyEnvelope) *commonpb.SignaturePolicy {
	rules := make([]*commonpb.SignaturePolicy, len(n.items))
	for i := range n.items {
		if n.items[i].principal == "" {
			rules[i] = n.items[i].build(env)
		}
	}
	for i := range n.items {
		if n.items[i].principal != "" {
			rules[i] = signedBy(int32(len(env.Identities)))
			env.Identities = append(env.Identities, Role(n.items[i].mspID, n.items[i].role))
		}
	}
	return nOutOf(n.n, rules)
}

// Role is the principal of everyone who has a role in an MSP.
func Role(mspID string, role msppb.MSPRole_MSPRoleType) *msppb.MSPPrincipal {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&msppb.MSPRole{MspIdentifier: mspID, Role: role})
	if err != nil {
		panic(fmt.Sprintf("policy: MSP id %q cannot be encoded: %v", mspID, err)) // only possible if it is no UTF-8
	}
	return &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: raw}
}

type parser struct {
	text string
	at   int
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) unexpected(want string) error {
	if p.at >= len(p.text) {
		return fmt.Errorf("invalid policy string '%s': it ends where %s should be", p.text, want)
	}
	return fmt.Errorf("invalid policy string '%s': found %q at character %d where %s should be", p.text, p.text[p.at:min(p.at+20, len(p.text))], p.at+1, want)
}

// take reads one symbol, with the space around it.
func (p *parser) take(symbol byte) bool {
	p.space()
	if p.at == len(p.text) || p.text[p.at] != symbol {
		return false
	}
	p.at++
	p.space()
	return true
}

func (p *parser) word(accept func(c byte) bool) string {
	from := p.at
	for p.at < len(p.text) && accept(p.text[p.at]) {
		p.at++
	}
	return p.text[from:p.at]
}

func (p *parser) item(depth int) (node, error) {
	if depth > maxTextDepth {
		return node{}, fmt.Errorf("policy text nests gates more than %d deep", maxTextDepth)
	}
	if p.at < len(p.text) && (p.text[p.at] == '\'' || p.text[p.at] == '"') {
		return p.principal()
	}
	start := p.at
	name := p.word(func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' })
	var counted, all bool
	switch name {
	case "AND", "And", "and":
		all = true
	case "OR", "Or", "or":
	case "OutOf", "OUTOF", "outof":
		counted = true
	default:
		p.at = start
		if name != "" {
			return node{}, fmt.Errorf("unrecognized token '%s' in policy string: want AND, OR, OutOf or a quoted principal such as 'Org1MSP.member'", name)
		}
		return node{}, p.unexpected("AND, OR, OutOf or a quoted principal")
	}
	p.space()
	if !p.take('(') {
		return node{}, p.unexpected("'('")
	}
	gate := node{n: 1}
	if counted {
		n, err := p.count()
		if err != nil {
			return node{}, err
		}
		gate.n = n
		if !p.take(',') {
			return node{}, p.unexpected("','")
		}
	}
	for {
		item, err := p.item(depth + 1)
		if err != nil {
			return node{}, err
		}
		gate.items = append(gate.items, item)
		if p.take(')') {
			break
		}
		if !p.take(',') {
			return node{}, p.unexpected("',' or ')'")
		}
	}
	if all {
		gate.n = int32(len(gate.items))
	}
	// One more than there are is allowed, as a policy that nothing satisfies.
	if int(gate.n) > len(gate.items)+1 {
		return node{}, fmt.Errorf("invalid t-out-of-n predicate, t %d, n %d", gate.n, len(gate.items))
	}
	return gate, nil
}

// count reads the number of an OutOf; quotes around it are allowed.
func (p *parser) count() (int32, error) {
	quote := byte(0)
	if p.at < len(p.text) && (p.text[p.at] == '\'' || p.text[p.at] == '"') {
		quote = p.text[p.at]
		p.at++
	}
	digits := p.word(func(c byte) bool { return c >= '0' && c <= '9' })
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, p.unexpected("a number of signatures")
	}
	if quote != 0 {
		if p.at == len(p.text) || p.text[p.at] != quote {
			return 0, p.unexpected("the closing quote")
		}
		p.at++
	}
	return int32(n), nil
}

func (p *parser) principal() (node, error) {
	quote := p.text[p.at]
	p.at++
	text := p.word(func(c byte) bool { return c != quote })
	if p.at == len(p.text) {
		return node{}, p.unexpected("the closing quote")
	}
	p.at++
	match := principalText.FindStringSubmatch(text)
	if match == nil {
		return node{}, fmt.Errorf("error parsing principal %s: want MSPID.role with letters, digits, '.' and '-' in the MSP id and a role out of member, admin, client, peer, orderer", text)
	}
	return node{principal: text, mspID: match[1], role: roles[match[2]]}, nil
}

// Text writes a policy in the language that Parse reads. A policy with principals other than roles, or with MSP ids that the
// language does not allow, has no text.
func Text(env *commonpb.SignaturePolicyEnvelope) (string, error) {
	if env == nil {
		return "", errors.New("policy is empty")
	}
	if _, ok := env.GetRule().GetType().(*commonpb.SignaturePolicy_SignedBy); ok {
		// A bare principal is the same policy as one out of one.
		env = &commonpb.SignaturePolicyEnvelope{Rule: nOutOf(1, []*commonpb.SignaturePolicy{env.Rule}), Identities: env.Identities}
	}
	var b strings.Builder
	if err := write(&b, env.Rule, env.Identities, 0); err != nil {
		return "", err
	}
	return b.String(), nil
}

func write(b *strings.Builder, from *commonpb.SignaturePolicy, identities []*msppb.MSPPrincipal, depth int) error {
	if depth > maxTextDepth+1 {
		return fmt.Errorf("policy nests gates more than %d deep", maxTextDepth)
	}
	switch t := from.GetType().(type) {
	case *commonpb.SignaturePolicy_SignedBy:
		if t.SignedBy < 0 || int(t.SignedBy) >= len(identities) {
			return fmt.Errorf("identity index out of range, requested %v, but identities length is %d", t.SignedBy, len(identities))
		}
		text, err := roleText(identities[t.SignedBy])
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "'%s'", text)
	case *commonpb.SignaturePolicy_NOutOf_:
		n, rules := t.NOutOf.GetN(), t.NOutOf.GetRules()
		switch {
		case n < 0 || len(rules) == 0 || int(n) > len(rules)+1:
			return fmt.Errorf("%d out of %d rules cannot be written as policy text", n, len(rules))
		case int(n) == len(rules) && n > 1:
			b.WriteString("AND(")
		case n == 1:
			b.WriteString("OR(")
		default:
			fmt.Fprintf(b, "OutOf(%d, ", n)
		}
		for i, sub := range rules {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := write(b, sub, identities, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(')')
	default:
		return errors.New("Empty policy element")
	}
	return nil
}

func roleText(p *msppb.MSPPrincipal) (string, error) {
	if p.GetPrincipalClassification() != msppb.MSPPrincipal_ROLE {
		return "", fmt.Errorf("a principal of kind %s cannot be written as policy text, only roles can", p.GetPrincipalClassification())
	}
	role := &msppb.MSPRole{}
	if err := proto.Unmarshal(p.GetPrincipal(), role); err != nil {
		return "", fmt.Errorf("could not unmarshal MSPRole from principal: %w", err)
	}
	text := role.MspIdentifier + "." + strings.ToLower(role.Role.String())
	if !principalText.MatchString(text) {
		return "", fmt.Errorf("the principal %q cannot be written as policy text", text)
	}
	return text, nil
}

// ParseImplicitMeta reads "ANY Readers", "ALL Endorsement" or "MAJORITY Admins".
func ParseImplicitMeta(text string) (*commonpb.ImplicitMetaPolicy, error) {
	words := strings.Split(text, " ")
	if len(words) != 2 {
		return nil, fmt.Errorf("expected two space separated tokens, but got %d", len(words))
	}
	kind, ok := commonpb.ImplicitMetaPolicy_Rule_value[words[0]]
	if !ok {
		return nil, fmt.Errorf("unknown rule type '%s', expected ALL, ANY, or MAJORITY", words[0])
	}
	return &commonpb.ImplicitMetaPolicy{Rule: commonpb.ImplicitMetaPolicy_Rule(kind), SubPolicy: words[1]}, nil
}
