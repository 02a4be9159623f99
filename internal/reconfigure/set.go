package reconfigure

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Set edits one place of the document: "batch.maxMessages=100",
// "policies.application.Endorsement=ANY Endorsement",
// "members.org1.anchorPeers=[peer0:7051]". The value is YAML; an empty one removes an
// access rule, a policy, a member or an orderer. Files are meant from dir.
func (c *Config) Set(assignment, dir string) error {
	path, text, ok := strings.Cut(assignment, "=")
	if !ok || path == "" {
		return fmt.Errorf("%q: PATH=VALUE is wanted, such as batch.maxMessages=100", assignment)
	}
	d, err := c.Document()
	if err != nil {
		return err
	}
	root, value := &yaml.Node{}, &yaml.Node{}
	if err := root.Encode(d); err != nil {
		return err
	}
	if err := yaml.Unmarshal([]byte(text), value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(value.Content) == 1 {
		value = value.Content[0] // of the YAML document
	} else {
		value = nil
	}
	if err := setPath(root, path, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if section, _, _ := strings.Cut(path, "."); value != nil && zero.MatchString(value.Value) && (section == "batch" || section == "raft") {
		return fmt.Errorf("%s: it cannot be %s", path, value.Value) // the document would take it as left out
	}
	raw, err := yaml.Marshal(root)
	if err != nil {
		return err
	}
	err = c.EditYAML(raw, dir)
	if err != nil && undecodable.MatchString(err.Error()) { // lines are those of a document that nobody has seen
		return fmt.Errorf("%s: %s", assignment, undecodable.ReplaceAllString(err.Error(), ""))
	}
	return err
}

var (
	zero        = regexp.MustCompile(`^0+ ?[a-zA-Z]*$`)
	undecodable = regexp.MustCompile(`^yaml: unmarshal errors:\s+line \d+: `)
)

// setPath sets, or with nil removes, what a path leads to.
func setPath(node *yaml.Node, path string, value *yaml.Node) error {
	switch node.Kind {
	case yaml.MappingNode:
		key, rest, deeper := strings.Cut(path, ".")
		for i := 0; i < len(node.Content); i += 2 {
			switch {
			case node.Content[i].Value != key:
			case deeper:
				return setPath(node.Content[i+1], rest, value)
			case value == nil:
				node.Content = slices.Delete(node.Content, i, i+2)
				return nil
			default:
				node.Content[i+1] = value
				return nil
			}
		}
		switch {
		case value == nil:
			return errors.New("there is no such thing to remove")
		case deeper:
			return fmt.Errorf("there is no %s", key)
		}
		node.Style = 0 // no longer {}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
		return nil
	case yaml.SequenceNode:
		var names []string
		for i, child := range node.Content {
			if child.Kind != yaml.MappingNode {
				break
			}
			name := strings.TrimSuffix(nameOf(child), "(orderers)")
			names = append(names, name)
			if path == name && value == nil {
				node.Content = slices.Delete(node.Content, i, i+1)
				return nil
			}
			if rest, ok := strings.CutPrefix(path, name+"."); ok {
				return setPath(child, rest, value)
			}
		}
		return fmt.Errorf("it is none of %s", strings.Join(names, ", "))
	}
	return errors.New("there is nothing below it")
}
