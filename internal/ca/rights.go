package ca

import (
	"fmt"
	"strconv"
	"strings"
)

// Attributes with a meaning to the authority itself.
const (
	attrRoles          = "hf.Registrar.Roles"         // types that the identity may register
	attrDelegateRoles  = "hf.Registrar.DelegateRoles" // types that those may register in turn
	attrRegistrarAttrs = "hf.Registrar.Attributes"    // attributes that the identity may give
	attrRevoker        = "hf.Revoker"
	attrGenCRL         = "hf.GenCRL"
	attrIntermediateCA = "hf.IntermediateCA"
	attrAffiliationMgr = "hf.AffiliationMgr"
	attrEnrollmentID   = "hf.EnrollmentID"
	attrType           = "hf.Type"
	attrAffiliation    = "hf.Affiliation"
)

// registrarAttributes give every right over the authority.
func registrarAttributes() []Attribute {
	return []Attribute{
		{Name: attrRoles, Value: "*"}, {Name: attrDelegateRoles, Value: "*"}, {Name: attrRegistrarAttrs, Value: "*"},
		{Name: attrRevoker, Value: "true"}, {Name: attrGenCRL, Value: "true"},
		{Name: attrIntermediateCA, Value: "true"}, {Name: attrAffiliationMgr, Value: "true"},
	}
}

// withFixedAttributes sets the attributes that mirror the identity's own fields, which enrollment
// certificates carry by default.
func withFixedAttributes(attrs []Attribute, id, typ, affiliation string) []Attribute {
	return mergeAttributes(attrs, []Attribute{
		{Name: attrEnrollmentID, Value: id, ECert: true},
		{Name: attrType, Value: typ, ECert: true},
		{Name: attrAffiliation, Value: affiliation, ECert: true},
	}, false)
}

// mergeAttributes sets changes over attrs, by name. With remove, a change to the empty value removes the
// attribute.
func mergeAttributes(attrs, changes []Attribute, remove bool) []Attribute {
	out := append([]Attribute(nil), attrs...)
next:
	for _, c := range changes {
		for i := range out {
			if out[i].Name == c.Name {
				if remove && c.Value == "" {
					out = append(out[:i], out[i+1:]...)
				} else {
					out[i] = c
				}
				continue next
			}
		}
		if !remove || c.Value != "" {
			out = append(out, c)
		}
	}
	return out
}

func attributeValue(attrs []Attribute, name string) (string, bool) {
	return (&identity{attributes: attrs}).attribute(name)
}

// isTrue reports a boolean attribute, absent or malformed being false.
func (i *identity) isTrue(attribute string) bool {
	v, _ := i.attribute(attribute)
	ok, err := strconv.ParseBool(v)
	return err == nil && ok
}

func (i *identity) isRegistrar() bool {
	v, _ := i.attribute(attrRoles)
	return v != ""
}

// containsAffiliation reports whether i, as a caller, may act on affiliation: its own, and those below.
func (i *identity) containsAffiliation(affiliation string) bool {
	return i.affiliation == "" || affiliation == i.affiliation || strings.HasPrefix(affiliation, i.affiliation+".")
}

func (i *identity) mayActOnAffiliation(affiliation string) *fault {
	if !i.containsAffiliation(affiliation) {
		return unauthorized(codeCallerNotAffiliated, "%q, of affiliation %q, has no authority over affiliation %q", i.id, i.affiliation, affiliation)
	}
	return nil
}

func (i *identity) mayActOnType(typ string) *fault {
	roles, _ := i.attribute(attrRoles)
	if roles == "" {
		return unauthorized(codeRegAttrAuth, "%q is not a registrar (no %s)", i.id, attrRoles)
	}
	if typ == "" {
		typ = "client"
	}
	if list := splitList(roles); !inList(list, "*", false) && !inList(list, typ, true) {
		return unauthorized(codeCallerNotAffiliated, "registrar %q may act on types %q, not on %q", i.id, roles, typ)
	}
	return nil
}

// mayManage is the right to see and change another identity.
func (i *identity) mayManage(other *identity) *fault {
	if f := i.mayActOnAffiliation(other.affiliation); f != nil {
		return f
	}
	return i.mayActOnType(other.typ)
}

// maySetSecret is the right to choose another's secret, which is the right to become that identity: only
// for who could have given it all its rights. (The stock server asks for mayManage alone, which lets any
// registrar of the same affiliation and type take over its administrator.)
func (i *identity) maySetSecret(other *identity) *fault {
	if i.id == other.id {
		return nil
	}
	var rights []Attribute
	for _, a := range other.attributes {
		switch a.Name {
		case attrEnrollmentID, attrType, attrAffiliation:
		default:
			if strings.HasPrefix(a.Name, "hf.") {
				rights = append(rights, a)
			}
		}
	}
	return i.mayGiveAttributes(rights, other)
}

// mayGiveAttributes is the right to register attributes. subject is the identity as it is, nil when it is
// being registered.
func (i *identity) mayGiveAttributes(attrs []Attribute, subject *identity) *fault {
	allowed, _ := i.attribute(attrRegistrarAttrs)
	for _, a := range attrs {
		if err := i.mayGive(a, attrs, splitList(allowed), subject); err != nil {
			return unauthorized(codeRegAttrAuth, "registrar %q may not give attribute %q: %v", i.id, a.Name, err)
		}
	}
	return nil
}

func (i *identity) mayGive(a Attribute, all []Attribute, allowed []string, subject *identity) error {
	if !matchesPattern(a.Name, allowed) {
		return fmt.Errorf("its own %s is %q", attrRegistrarAttrs, allowed)
	}
	own, has := i.attribute(a.Name)
	switch a.Name {
	case attrEnrollmentID, attrType, attrAffiliation:
		return fmt.Errorf("the authority sets it")
	case attrRevoker, attrGenCRL, attrIntermediateCA, attrAffiliationMgr:
		if !i.isTrue(a.Name) {
			return fmt.Errorf("it is not itself one")
		}
		if _, err := strconv.ParseBool(a.Value); err != nil && a.Value != "" {
			return fmt.Errorf("the value %q is neither true nor false", a.Value)
		}
		return nil
	case attrRoles, attrDelegateRoles, attrRegistrarAttrs:
		if !has {
			return fmt.Errorf("it does not have it itself")
		}
	default:
		if strings.HasPrefix(a.Name, "hf.") {
			return fmt.Errorf("the prefix hf. is reserved")
		}
		return nil
	}
	// What remains are lists; giving none removes the attribute, which needs no further right.
	if a.Value == "" {
		return nil
	}
	if a.Name == attrRegistrarAttrs {
		return mayGiveRegistrarAttributes(a.Value, all, splitList(own), subject)
	}
	ownList := splitList(own)
	if !inList(ownList, "*", false) {
		for _, v := range splitList(a.Value) {
			if !inList(ownList, v, true) {
				return fmt.Errorf("%q is not among its own %q", v, own)
			}
		}
	}
	if a.Name == attrDelegateRoles {
		return delegatesWithinRoles(a.Value, all, subject)
	}
	return nil
}

// mayGiveRegistrarAttributes checks that a new registrar may give no more than its maker, and reserved
// attributes only if it gets them itself.
func mayGiveRegistrarAttributes(value string, all []Attribute, own []string, subject *identity) error {
	for _, name := range splitList(value) {
		if !matchesPattern(name, own) {
			return fmt.Errorf("%q is not among its own %q", name, own)
		}
		if !strings.HasPrefix(name, "hf.") {
			continue
		}
		_, given := attributeValue(all, name)
		if !given && subject != nil {
			_, given = subject.attribute(name)
		}
		if !given {
			return fmt.Errorf("the identity does not get %q itself", name)
		}
	}
	return nil
}

func delegatesWithinRoles(delegates string, all []Attribute, subject *identity) error {
	roles, given := attributeValue(all, attrRoles)
	if !given && subject != nil {
		roles, _ = subject.attribute(attrRoles)
	}
	list := splitList(roles)
	if inList(list, "*", false) {
		return nil
	}
	for _, d := range splitList(delegates) {
		if !inList(list, d, true) {
			return fmt.Errorf("%s %q exceeds %s %q", attrDelegateRoles, delegates, attrRoles, roles)
		}
	}
	return nil
}

func splitList(s string) []string {
	var out []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func inList(list []string, v string, foldCase bool) bool {
	for _, l := range list {
		if l == v || foldCase && strings.EqualFold(l, v) {
			return true
		}
	}
	return false
}

// matchesPattern compares a name with patterns that may end in '*'.
func matchesPattern(name string, patterns []string) bool {
	for _, p := range patterns {
		if prefix, wild := strings.CutSuffix(p, "*"); wild && strings.HasPrefix(name, prefix) || name == p {
			return true
		}
	}
	return false
}
