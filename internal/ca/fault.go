package ca

import (
	"errors"
	"fmt"
	"net/http"
)

// Error codes of the Fabric CA REST API that clients tell apart. The numbers are part of the protocol.
const (
	codeUnknown             = 0
	codeMethodNotAllowed    = 1
	codeNoAuthHeader        = 2
	codeReadingBody         = 3
	codeEmptyBody           = 4
	codeBadBody             = 5
	codeNotRevoker          = 7
	codeRevokeCertNotFound  = 8
	codeCertWrongOwner      = 9
	codeRevokeIDNotFound    = 10
	codeMissingRevokeArgs   = 15
	codeGettingAffiliation  = 16
	codeCANotFound          = 19
	codeAuthentication      = 20
	codeNoUserPass          = 21
	codeInvalidUser         = 23
	codeInvalidPass         = 24
	codeInvalidToken        = 25
	codeUntrustedCert       = 26
	codeCertExpired         = 27
	codeCertRevoked         = 28
	codeCertNotFound        = 30
	codeBadCSR              = 31
	codeNoGenCRLAuth        = 35
	codeInvalidRevokedAfter = 36
	codeInvalidExpiredAfter = 37
	codeRegAttrAuth         = 42
	codeMissingRegAttr      = 43
	codeCallerNotAffiliated = 44
	codeNoCRLSign           = 46
	codeGettingUser         = 49
	codeAddIdentity         = 52
	codeRemoveIdentity      = 56
	codeGettingBoolParam    = 57
	codeModifyingIdentity   = 58
	codeMissingRole         = 59
	codeAddAffiliation      = 60
	codeRemoveAffiliation   = 61
	codeNotFound            = 63
	codeModifyAffiliation   = 64
	codeCertAlreadyRevoked  = 66
	codeGettingCert         = 67
	codeRevokedID           = 70
	codeAuthorization       = 71
	codePasswordAttempts    = 73
	codeDuplicateIdentity   = 74
	codeRegistrarRights     = 76
	codeCNMismatch          = 77
	codeMissingAttr         = 78
	codeCSRFields           = 80
	codeMaxEnrollments      = 82
)

// fault is an answer that refuses a request. What the client sees (code, msg) may say less than what the
// log gets (detail): a failed authentication or authorisation never tells the caller which check failed.
type fault struct {
	status int
	code   int
	msg    string
	detail string // for the log, when it may not be told to the client; empty: msg says it all
	reason int    // the specific code behind detail
}

func (f *fault) Error() string {
	if f.detail != "" {
		return f.detail
	}
	return f.msg
}

func refuse(status, code int, format string, args ...any) *fault {
	return &fault{status: status, code: code, reason: code, msg: fmt.Sprintf(format, args...)}
}

// unauthenticated hides why the caller could not be identified.
func unauthenticated(reason int, format string, args ...any) *fault {
	return &fault{status: http.StatusUnauthorized, code: codeAuthentication, msg: "Authentication failure",
		reason: reason, detail: fmt.Sprintf(format, args...)}
}

// unauthorized hides which right the caller lacks.
func unauthorized(reason int, format string, args ...any) *fault {
	return &fault{status: http.StatusForbidden, code: codeAuthorization, msg: "Authorization failure",
		reason: reason, detail: fmt.Sprintf(format, args...)}
}

// asFault is the one place that turns errors into answers: whatever is no fault is this server's own
// trouble, whose text stays in the log.
func asFault(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	return &fault{status: http.StatusInternalServerError, code: codeUnknown,
		msg: "Internal error of the certificate authority; its log has the details", detail: err.Error()}
}
