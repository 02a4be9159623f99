package node

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// logSpec serves the logging specification in Fabric's form: [LOGGER[,LOGGER...]=]LEVEL, several of them with colons between. One level
// holds for the whole process; levels of single loggers are checked and told again, and change nothing.
type logSpec struct {
	level *slog.LevelVar

	mu      sync.Mutex
	name    string // of the level, if it has another one in Fabric
	loggers map[string]string
}

var loggerName = regexp.MustCompile(`^[[:alnum:]_#-]+(\.[[:alnum:]_#-]+)*\.?$`)

// maxLogSpec bounds a specification.
const maxLogSpec = 1 << 12

func (s *logSpec) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(err error) { writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()}) }
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		writeJSON(w, http.StatusOK, map[string]string{"spec": s.String()})
	case http.MethodPut:
		var body struct {
			Spec string `json:"spec"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogSpec)).Decode(&body); err != nil {
			refuse(fmt.Errorf(`%w: a body such as {"spec":"debug"} is wanted`, err))
			return
		}
		if err := s.Set(body.Spec); err != nil {
			refuse(err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(fmt.Errorf("invalid request method: %s", r.Method))
	}
}

// Set changes the level, or refuses the specification as a whole.
func (s *logSpec) Set(spec string) error {
	level, name, loggers := slog.LevelInfo, "info", map[string]string{}
	for _, segment := range strings.Split(spec, ":") {
		bad := fmt.Errorf("invalid logging specification '%s': bad segment '%s'", spec, segment)
		parts := strings.Split(segment, "=")
		at, ok := fabricLevel(parts[len(parts)-1])
		switch {
		case len(parts) > 2 || !ok || len(parts) == 2 && parts[1] == "":
			return bad
		case len(parts) == 1:
			level, name = at, levelName(segment)
			continue
		case parts[0] == "":
			return fmt.Errorf("invalid logging specification '%s': no logger specified in segment '%s'", spec, segment)
		}
		for _, logger := range strings.Split(parts[0], ",") {
			if !loggerName.MatchString(logger) {
				return fmt.Errorf("invalid logging specification '%s': bad logger name '%s'", spec, logger)
			}
			loggers[logger] = levelName(parts[1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.level.Set(level)
	s.name, s.loggers = name, loggers
	return nil
}

// levelName is how Fabric tells a level.
func levelName(name string) string {
	switch name = strings.ToLower(name); name {
	case "", "notice":
		return "info"
	case "warning":
		return "warn"
	case "critical":
		return "error"
	}
	return name
}

// String is the specification in force.
func (s *logSpec) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.name
	if name == "" {
		name = strings.ToLower(s.level.Level().String())
	}
	var all []string
	for logger, at := range s.loggers {
		all = append(all, logger+"="+at)
	}
	slices.Sort(all)
	return strings.Join(append(all, name), ":")
}
