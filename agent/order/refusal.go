package order

import (
	"errors"
	"fmt"
)

// Reason says why a command, or another signed document, is refused. The values travel in job states; the
// catalogue of agent/diagnosis has their texts.
type Reason string

// The reasons.
const (
	ReasonUnsigned         Reason = "unsigned"
	ReasonBadSignature     Reason = "bad_signature"
	ReasonUnknownKey       Reason = "unknown_key"
	ReasonRevoked          Reason = "revoked"
	ReasonUntrustedRoot    Reason = "untrusted_root"
	ReasonNotEnrolled      Reason = "not_enrolled" // the gateway knows no operator yet
	ReasonTrustOutdated    Reason = "trust_outdated"
	ReasonConfigOutdated   Reason = "config_outdated"
	ReasonMalformed        Reason = "malformed"
	ReasonTooLarge         Reason = "too_large"
	ReasonWrongDevice      Reason = "wrong_device"
	ReasonWrongTenant      Reason = "wrong_tenant"
	ReasonExpired          Reason = "expired"
	ReasonNotYetValid      Reason = "not_yet_valid"
	ReasonReplayed         Reason = "replayed"
	ReasonRunsUsedUp       Reason = "runs_used_up"
	ReasonActionNotAllowed Reason = "action_not_allowed"
	ReasonUnknownAction    Reason = "unknown_action"
	ReasonNotSupported     Reason = "not_supported"
	ReasonOrderClosed      Reason = "order_closed"
	ReasonOrderSuperseded  Reason = "order_superseded"
	ReasonOrderRevoked     Reason = "order_revoked"
	ReasonSecrets          Reason = "secrets_unreadable"
	ReasonClockUntrusted   Reason = "clock_untrusted"
	ReasonBusy             Reason = "busy"
	ReasonInternal         Reason = "internal"
)

// RefusalError is the error for a command that is not carried out, or a document
// that is not taken.
type RefusalError struct {
	Reason Reason
	Detail string // English, for logs and experts
}

func (r *RefusalError) Error() string { return fmt.Sprintf("refused (%s): %s", r.Reason, r.Detail) }

// ChallengeError asks for proof of freshness, because the gateway's clock
// cannot be trusted: the same command again, signed with this nonce, beside a
// time statement for it.
type ChallengeError struct{ Nonce string }

func (c *ChallengeError) Error() string {
	return "clock cannot be trusted: a signed time for nonce " + c.Nonce + " is needed"
}

func refuse(reason Reason, format string, args ...any) error {
	return &RefusalError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// refuseErr turns an error of this package into a RefusalError; unknownKey is the
// reason for a key outside the expected set.
func refuseErr(err error, unknownKey Reason) error {
	reason := ReasonMalformed
	switch {
	case errors.Is(err, ErrUnsigned):
		reason = ReasonUnsigned
	case errors.Is(err, ErrBadSignature):
		reason = ReasonBadSignature
	case errors.Is(err, ErrUnknownKey):
		reason = unknownKey
	case errors.Is(err, ErrTooLarge):
		reason = ReasonTooLarge
	}
	return &RefusalError{Reason: reason, Detail: err.Error()}
}
