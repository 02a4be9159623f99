// Package fabricconfig reads the configuration files of Hyperledger Fabric's
// nodes, core.yaml and orderer.yaml, with the environment variables that
// override them, by Fabric's rules: keys regardless of case, CORE_PEER_TLS_ENABLED for
// peer.tls.enabled, empty variables as if they were not there, relative paths
// from the file's folder.
//
// It knows the names of Fabric's settings and no meaning of any. Whoever asks for a
// setting gives it a meaning; what nobody asked for is reported by Rest. Values of a
// wrong type are errors that name the setting and where it was made. Fabric's defaults
// are left out: its files hold them. Open this file first; keys.go lists the names.
package fabricconfig

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The kinds of files.
const (
	Core    = "core"    // of peers
	Orderer = "orderer" // of orderers
)

// officialDir is where Fabric's images have their configuration.
const officialDir = "/etc/hyperledger/fabric"

const (
	maxFile = 4 << 20
	maxDeep = 32
)

// Notice is what should be said about a setting that is not followed as it stands.
type Notice struct {
	Level  slog.Level
	Key    string // as in Fabric's files
	Source string // file or environment variable
	Text   string
}

type setting struct {
	key, source string
	value       any
	known, used bool
}

// Settings are those of one node. The methods that read a setting return the
// zero value where there is none, or none of that type; Err tells the latter.
type Settings struct {
	kind, file, dir string
	all             map[string]*setting // by key in lower case
	notices         []Notice
	problems        []error
}

// Find is the path of the file that Fabric would read: in FABRIC_CFG_PATH, or else in
// the working folder or the one of Fabric's images.
func Find(kind string, environ []string) (string, error) {
	dirs := []string{".", officialDir}
	if dir := lookup(environ, "FABRIC_CFG_PATH"); dir != "" {
		dirs = []string{dir}
	}
	for _, dir := range dirs {
		for _, ending := range []string{".yaml", ".yml"} {
			file := filepath.Join(dir, kind+ending)
			if _, err := os.Stat(file); err == nil {
				return filepath.Abs(file)
			}
		}
	}
	return "", fmt.Errorf("there is no %s.yaml in %s; set FABRIC_CFG_PATH to the folder that has it", kind, strings.Join(dirs, " or "))
}

func lookup(environ []string, name string) (value string) {
	for _, entry := range environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

// Load finds and reads the file of a kind, and applies the environment. Containers may have no file and everything in variables:
// where none is found and FABRIC_CFG_PATH names no folder for it, defaults stands in for the one of Fabric's images.
func Load(kind string, environ []string, defaults string) (*Settings, error) {
	file, err := Find(kind, environ)
	if err != nil && lookup(environ, "FABRIC_CFG_PATH") == "" {
		s, err := Parse(kind, filepath.Join(officialDir, kind+".yaml"), []byte(defaults), environ)
		if err == nil {
			s.notices = append(s.notices, Notice{slog.LevelWarn, kind + ".yaml", "", "there is no such file, here or in " + officialDir + ": environment variables alone are followed"})
		}
		return s, err
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are accepted", file, info.Size(), maxFile)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(kind, file, raw, environ)
}

// Parse is Load for a file that has been read.
func Parse(kind, file string, raw []byte, environ []string) (*Settings, error) {
	s := &Settings{kind: kind, file: file, dir: filepath.Dir(file), all: map[string]*setting{}}
	var tree map[string]any
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	names := keysOf(kind)
	if err := s.flatten("", tree, names, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s.override(names, environ)
	return s, nil
}

// flatten notes the settings below a key.
func (s *Settings) flatten(prefix string, tree map[string]any, names *names, deep int) error {
	if deep > maxDeep {
		return fmt.Errorf("%s is nested too deeply", prefix)
	}
	for name, value := range tree {
		key := prefix + name
		if below, ok := value.(map[string]any); ok && len(below) > 0 {
			if err := s.flatten(key+".", below, names, deep+1); err != nil {
				return err
			}
			continue
		}
		lower := strings.ToLower(key)
		if other, ok := s.all[lower]; ok {
			return fmt.Errorf("%s and %s are the same setting", min(key, other.key), max(key, other.key))
		}
		s.all[lower] = &setting{key: key, source: s.file, value: value, known: names.has(lower)}
	}
	return nil
}

// override applies the environment.
func (s *Settings) override(names *names, environ []string) {
	prefix := strings.ToUpper(s.kind) + "_"
	variables := map[string]string{} // variable, without prefix, of keys
	for lower, key := range names.exact {
		variables[variable(lower)] = key
	}
	for _, set := range s.all {
		variables[variable(set.key)] = set.key
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || value == "" {
			continue
		}
		key, known := variables[strings.ToUpper(rest)]
		if !known {
			key = strings.ToLower(strings.ReplaceAll(rest, "_", "."))
		}
		lower := strings.ToLower(key)
		s.all[lower] = &setting{key: key, source: "environment variable " + name, value: value, known: names.has(lower)}
	}
}

func variable(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// File is the path of the file.
func (s *Settings) File() string { return s.file }

// get is a setting that has a value.
func (s *Settings) get(key string) *setting {
	set := s.all[strings.ToLower(key)]
	if set == nil {
		return nil
	}
	set.used = true
	if set.value == nil || set.value == "" {
		return nil
	}
	return set
}

func (s *Settings) wrong(set *setting, wanted string) {
	s.problems = append(s.problems, fmt.Errorf("%s is %q in %s: %s is wanted", set.key, fmt.Sprint(set.value), set.source, wanted))
}

// Has tells whether a setting has a value.
func (s *Settings) Has(key string) bool { return s.get(key) != nil }

// text is a setting's value as it would stand in an environment variable.
func (s *Settings) text(key, wanted string) (string, *setting) {
	set := s.get(key)
	if set == nil {
		return "", nil
	}
	switch v := set.value.(type) {
	case string:
		return strings.TrimSpace(v), set
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), set
	}
	s.wrong(set, wanted)
	return "", nil
}

// String reads a text.
func (s *Settings) String(key string) string {
	text, _ := s.text(key, "a text")
	return text
}

// Path reads the path of a file or folder; it is absolute.
func (s *Settings) Path(key string) string { return s.resolve(s.String(key)) }

func (s *Settings) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.dir, path)
}

// Bool reads a truth value.
func (s *Settings) Bool(key string) bool {
	const wanted = "true or false"
	text, set := s.text(key, wanted)
	if set == nil {
		return false
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		s.wrong(set, wanted)
	}
	return b
}

// Int reads a whole number that is not negative.
func (s *Settings) Int(key string) int {
	const wanted = "a whole number, not negative,"
	text, set := s.text(key, wanted)
	if set == nil {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		s.wrong(set, wanted)
		return 0
	}
	return int(n)
}

// Duration reads a duration that is not negative.
func (s *Settings) Duration(key string) time.Duration {
	const wanted = "a duration with its unit, such as 500ms or 30s,"
	text, set := s.text(key, wanted)
	if set == nil {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		s.wrong(set, wanted)
		return 0
	}
	return d
}

// List reads a list of texts. In the environment it is [a,b], or a and b
// with commas or blanks between them.
func (s *Settings) List(key string) []string {
	set := s.get(key)
	if set == nil {
		return nil
	}
	var list []string
	switch v := set.value.(type) {
	case string:
		if inner, ok := strings.CutPrefix(strings.TrimSpace(v), "["); ok && strings.HasSuffix(inner, "]") {
			for _, e := range strings.Split(strings.TrimSuffix(inner, "]"), ",") {
				list = append(list, strings.Trim(strings.TrimSpace(e), `"'`))
			}
		} else {
			list = strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
		}
	case []any:
		for _, e := range v {
			text, ok := e.(string)
			if !ok {
				s.wrong(set, "a list of texts")
				return nil
			}
			list = append(list, text)
		}
	default:
		s.wrong(set, "a list")
	}
	return slices.DeleteFunc(list, func(e string) bool { return e == "" })
}

// Paths reads a list of paths; they are absolute.
func (s *Settings) Paths(key string) []string {
	list := s.List(key)
	for i := range list {
		list[i] = s.resolve(list[i])
	}
	return list
}

// Entries reads a list of small groups of settings; a variable holds it as YAML.
func (s *Settings) Entries(key string) []map[string]any {
	set := s.get(key)
	if set == nil {
		return nil
	}
	const wanted = "a list of groups of settings"
	list, ok := set.value.([]any)
	if text, isText := set.value.(string); isText {
		ok = yaml.Unmarshal([]byte(text), &list) == nil
	}
	if !ok {
		s.wrong(set, wanted)
		return nil
	}
	var entries []map[string]any
	for _, e := range list {
		group, ok := e.(map[string]any)
		if !ok {
			s.wrong(set, wanted)
			return nil
		}
		entries = append(entries, group)
	}
	return entries
}

// Note says something about a setting. One that has not been made is named without
// a source.
func (s *Settings) Note(level slog.Level, key, text string) {
	n := Notice{Level: level, Key: key, Text: text}
	if set := s.get(key); set != nil {
		n.Source = set.source
	}
	s.notices = append(s.notices, n)
}

// Fail makes a setting an error.
func (s *Settings) Fail(key, text string) {
	source := s.file
	if set := s.get(key); set != nil {
		source = set.source
	}
	s.problems = append(s.problems, fmt.Errorf("%s in %s: %s", key, source, text))
}

// Err is everything that is wrong with the settings that were read.
func (s *Settings) Err() error { return errors.Join(s.problems...) }

// Notices are those that were made, and one for each setting that was not read:
// it has no meaning here, or is none of Fabric's.
func (s *Settings) Notices() []Notice {
	all := slices.Clone(s.notices)
	for _, lower := range slices.Sorted(maps.Keys(s.all)) {
		switch set := s.all[lower]; {
		case set.used:
		case !set.known:
			all = append(all, Notice{slog.LevelWarn, set.key, set.source, "unknown setting"})
		case set.value != nil && set.value != "":
			all = append(all, Notice{slog.LevelInfo, set.key, set.source, "setting has no meaning here"})
		}
	}
	return all
}
