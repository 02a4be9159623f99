package node

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/internal/builder"
	"github.com/hansa-ledger/hansa/internal/ca"
)

// The example configurations document every setting.
//
//go:embed peer.yaml
var PeerExample string

//go:embed orderer.yaml
var OrdererExample string

//go:embed ca.yaml
var CAExample string

// PeerConfig configures `hansa peer`. peer.yaml documents every field.
type PeerConfig struct {
	MSPID       string            `yaml:"mspId"`
	MSPDir      string            `yaml:"mspDir"`
	DataDir     string            `yaml:"dataDir"`
	FabricData  string            `yaml:"fabricData"`
	Listen      string            `yaml:"listen"`
	Address     string            `yaml:"address"`
	TLS         TLSConfig         `yaml:"tls"`
	Operations  OperationsConfig  `yaml:"operations"`
	Chaincode   ChaincodeConfig   `yaml:"chaincode"`
	Gateway     GatewayConfig     `yaml:"gateway"`
	PrivateData PrivateDataConfig `yaml:"privateData"`
	TimeWindow  time.Duration     `yaml:"timeWindow"`
	Limits      PeerLimits        `yaml:"limits"`
	Log         LogConfig         `yaml:"log"`
}

// GatewayConfig bounds how long the Gateway waits for others.
type GatewayConfig struct {
	EndorsementTimeout time.Duration `yaml:"endorsementTimeout"`
	BroadcastTimeout   time.Duration `yaml:"broadcastTimeout"`
}

// PrivateDataConfig says how private data comes to the members' peers and goes
// from them.
type PrivateDataConfig struct {
	PushTimeout       time.Duration `yaml:"pushTimeout"`
	PullTimeout       time.Duration `yaml:"pullTimeout"`
	ReconcileInterval time.Duration `yaml:"reconcileInterval"`
	ImplicitRequired  int           `yaml:"implicitRequired"`
	ImplicitMaximum   int           `yaml:"implicitMaximum"`
	EraseAfter        time.Duration `yaml:"eraseAfter"`
}

// ChaincodeConfig says how contracts are reached.
type ChaincodeConfig struct {
	Listen         string            `yaml:"listen"`
	Address        string            `yaml:"address"`
	ExecuteTimeout time.Duration     `yaml:"executeTimeout"`
	StartTimeout   time.Duration     `yaml:"startTimeout"`
	BuildTimeout   time.Duration     `yaml:"buildTimeout"`
	Builder        map[string]string `yaml:"builder"`
	// ExternalBuilders build and run contracts; with any the port takes only the contracts that they run.
	ExternalBuilders []builder.Builder `yaml:"externalBuilders"`
}

// PeerLimits bounds what callers can make a peer do at once.
type PeerLimits struct {
	Endorser int `yaml:"endorser"`
	Gateway  int `yaml:"gateway"`
	Deliver  int `yaml:"deliver"`
}

// OrdererConfig configures `hansa orderer`. orderer.yaml documents every field.
type OrdererConfig struct {
	MSPID      string            `yaml:"mspId"`
	MSPDir     string            `yaml:"mspDir"`
	DataDir    string            `yaml:"dataDir"`
	FabricData FabricOrdererData `yaml:"fabricData"`
	Listen     string            `yaml:"listen"`
	TLS        TLSConfig         `yaml:"tls"`
	Admin      AdminConfig       `yaml:"admin"`
	Operations OperationsConfig  `yaml:"operations"`
	Limits     OrdererLimits     `yaml:"limits"`
	Log        LogConfig         `yaml:"log"`
}

// AdminConfig is the channel participation API, over mutual TLS, or plain on this machine.
type AdminConfig struct {
	Listen string    `yaml:"listen"`
	Plain  bool      `yaml:"plain"`
	TLS    TLSConfig `yaml:"tls"`
}

// OrdererLimits bounds what callers can make an orderer do at once.
type OrdererLimits struct {
	Broadcast int `yaml:"broadcast"`
	Deliver   int `yaml:"deliver"`
}

// CAConfig configures `hansa ca`. ca.yaml documents every field.
type CAConfig struct {
	CA         ca.Config        `yaml:"ca"`
	Listen     string           `yaml:"listen"`
	TLS        TLSConfig        `yaml:"tls"`
	Operations OperationsConfig `yaml:"operations"`
	Log        LogConfig        `yaml:"log"`
}

// TLSConfig names PEM files. ClientRoots, where present, make the server ask
// clients for a certificate.
type TLSConfig struct {
	Cert              string   `yaml:"cert"`
	Key               string   `yaml:"key"`
	ClientRoots       []string `yaml:"clientRoots"`
	RequireClientCert bool     `yaml:"requireClientCert"`
}

// OperationsConfig is the port for health checks and metrics: plain, or with a certificate over TLS.
type OperationsConfig struct {
	Listen string    `yaml:"listen"`
	TLS    TLSConfig `yaml:"tls"`
}

// LogConfig says how much is logged.
type LogConfig struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"`
}

// LoadConfig reads a YAML file into config, a pointer to one of the structs
// above: an unknown key is an error. Then environment variables override single
// fields: HANSA_<ROLE>_<KEY>, keys of nested fields joined by "_", as in
// HANSA_PEER_TLS_CERT. Relative paths are meant from the file's folder.
func LoadConfig(file, role string, environ []string, config any) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if err := decodeStrict(raw, config); err != nil {
		return fmt.Errorf("configuration %s: %w", file, err)
	}
	prefix := "HANSA_" + strings.ToUpper(role) + "_"
	overrides := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, prefix) {
			overrides[strings.TrimPrefix(name, prefix)] = value
		}
	}
	if err := override(reflect.ValueOf(config).Elem(), "", overrides); err != nil {
		return err
	}
	for name := range overrides {
		return fmt.Errorf("environment variable %s%s: the %s has no such setting", prefix, name, role)
	}
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return err
	}
	resolvePaths(reflect.ValueOf(config).Elem(), base)
	return nil
}

func decodeStrict(raw []byte, config any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(config); err != nil && !errors.Is(err, io.EOF) {
		return errors.New(unknownField.ReplaceAllString(err.Error(), `unknown setting "$1"`))
	}
	return nil
}

// unknownField is how the YAML decoder tells of a setting that is not known.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// override sets fields from the environment and deletes what it used.
func override(v reflect.Value, prefix string, values map[string]string) error {
	for i := range v.NumField() {
		field, name := v.Field(i), prefix+strings.ToUpper(yamlName(v.Type().Field(i)))
		if field.Kind() == reflect.Struct {
			if err := override(field, name+"_", values); err != nil {
				return err
			}
			continue
		}
		text, ok := values[name]
		if !ok {
			continue
		}
		delete(values, name)
		if err := set(field, text); err != nil {
			return fmt.Errorf("environment variable ..._%s=%q: %w", name, text, err)
		}
	}
	return nil
}

func set(field reflect.Value, text string) error {
	switch target := field.Addr().Interface().(type) {
	case *string:
		*target = text
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("true or false is wanted")
		}
		*target = b
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("a whole number is wanted")
		}
		*target = n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("a duration such as 500ms or 2s is wanted")
		}
		*target = d
	case *slog.Level:
		return target.UnmarshalText([]byte(text))
	case *[]string:
		*target = strings.Split(text, ",")
	default:
		return errors.New("this setting can only be made in the file")
	}
	return nil
}

func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// pathKeys are the settings that name files or folders.
var pathKeys = map[string]bool{"mspDir": true, "dataDir": true, "fabricData": true, "cert": true, "key": true, "clientRoots": true,
	"dir": true, "path": true, "ledger": true, "wal": true, "snapshots": true, "certFile": true, "keyFile": true, "chainFile": true}

func resolvePaths(v reflect.Value, base string) {
	resolve := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(base, p)
	}
	for i := range v.NumField() {
		field := v.Field(i)
		switch key := yamlName(v.Type().Field(i)); {
		case field.Kind() == reflect.Struct:
			resolvePaths(field, base)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			for j := range field.Len() {
				resolvePaths(field.Index(j), base)
			}
		case !pathKeys[key]:
		case field.Kind() == reflect.String:
			field.SetString(resolve(field.String()))
		case field.Kind() == reflect.Slice:
			for j := range field.Len() {
				field.Index(j).SetString(resolve(field.Index(j).String()))
			}
		}
	}
}

// require names the first setting that is missing.
func require(role string, settings ...[2]string) error {
	for _, s := range settings {
		if s[1] == "" {
			return fmt.Errorf("%s configuration: %s is missing; `hansa %s --example` shows a complete file", role, s[0], role)
		}
	}
	return nil
}

// defaults of PeerConfig and OrdererConfig.
const (
	defaultConcurrency    = 2500 // of each service, as Fabric's defaults for the endorser and deliver
	defaultGatewayLimit   = 5000
	defaultExecuteTimeout = 30 * time.Second
)

func (c *PeerConfig) complete() error {
	if err := require("peer", [2]string{"mspId", c.MSPID}, [2]string{"mspDir", c.MSPDir}, [2]string{"dataDir", c.DataDir},
		[2]string{"listen", c.Listen}, [2]string{"tls.cert", c.TLS.Cert}, [2]string{"tls.key", c.TLS.Key}); err != nil {
		return err
	}
	if c.Address == "" {
		c.Address = c.Listen
	}
	setDefault(&c.Limits.Endorser, defaultConcurrency)
	setDefault(&c.Limits.Gateway, defaultGatewayLimit)
	setDefault(&c.Limits.Deliver, defaultConcurrency)
	setDefault(&c.Chaincode.ExecuteTimeout, defaultExecuteTimeout)
	setDefault(&c.Chaincode.Address, c.Chaincode.Listen)
	if err := c.Chaincode.checkBuilders(); err != nil {
		return err
	}
	if d := &c.PrivateData; d.ImplicitRequired < 0 || d.ImplicitMaximum < 0 || d.PushTimeout < 0 || d.PullTimeout < 0 || d.ReconcileInterval < 0 || d.EraseAfter < 0 {
		return errors.New("peer configuration: privateData has a negative value")
	}
	if c.TimeWindow < 0 {
		return errors.New("peer configuration: timeWindow is negative")
	}
	if c.Gateway.EndorsementTimeout < 0 || c.Gateway.BroadcastTimeout < 0 {
		return errors.New("peer configuration: gateway has a negative value")
	}
	return nil
}

func (c *ChaincodeConfig) checkBuilders() error {
	names := map[string]bool{}
	for i, b := range c.ExternalBuilders {
		switch {
		case b.Name == "" || b.Path == "":
			return fmt.Errorf("peer configuration: chaincode.externalBuilders, entry %d: name and path are wanted", i+1)
		case names[b.Name]:
			return fmt.Errorf("peer configuration: chaincode.externalBuilders: %q is there twice", b.Name)
		}
		names[b.Name] = true
	}
	host, _, err := net.SplitHostPort(c.Address)
	if ip := net.ParseIP(host); len(names) > 0 && c.Listen != "" && (err != nil || host == "" || ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("peer configuration: chaincode.address is %q: host and port are wanted, at which contracts that are run by external builders reach this peer", c.Address)
	}
	return nil
}

func (c *OrdererConfig) complete() error {
	if err := require("orderer", [2]string{"mspId", c.MSPID}, [2]string{"mspDir", c.MSPDir}, [2]string{"dataDir", c.DataDir},
		[2]string{"listen", c.Listen}, [2]string{"tls.cert", c.TLS.Cert}, [2]string{"tls.key", c.TLS.Key}); err != nil {
		return err
	}
	setDefault(&c.Limits.Broadcast, defaultConcurrency)
	setDefault(&c.Limits.Deliver, defaultConcurrency)
	return nil
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// NewLogger makes the logger that a node hands to its components; level can be
// changed later.
func NewLogger(c LogConfig, level *slog.LevelVar, out io.Writer) (*slog.Logger, error) {
	level.Set(c.Level)
	options := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "", "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	}
	return nil, fmt.Errorf("log.format is %q; json or text is wanted", c.Format)
}
