package order

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// TestEnvelopesAreDSSE compares ours with the reference implementation: the
// bytes that are signed, and the bytes that travel.
func TestEnvelopesAreDSSE(t *testing.T) {
	for _, typ := range []string{"", TypeOrder, "a b", "类型", strings.Repeat("t", 1000)} {
		for _, payload := range [][]byte{nil, []byte("hello world"), {0, 0xff, '\n'}, bytes.Repeat([]byte("x"), 100_000)} {
			if got, want := PAE(typ, payload), dsse.PAE(typ, payload); !bytes.Equal(got, want) {
				t.Errorf("PAE(%.20q, %d bytes) = %.60q, want %.60q", typ, len(payload), got, want)
			}
		}
	}
	// The example of the specification.
	if got := string(PAE("http://example.com/HelloWorld", []byte("hello world"))); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Errorf("PAE of the specification's example = %q", got)
	}

	env := must(Sign(TypeOrder, []byte("{\"a\":1}"), newKey(t)))
	ours := must(json.Marshal(env))
	var theirs dsse.Envelope
	if err := json.Unmarshal(ours, &theirs); err != nil {
		t.Fatal(err)
	}
	if again := must(json.Marshal(theirs)); !bytes.Equal(ours, again) {
		t.Errorf("envelope is %s, theirs %s", ours, again)
	}
	if payload, err := theirs.DecodeB64Payload(); err != nil || string(payload) != `{"a":1}` {
		t.Errorf("they read %q (%v)", payload, err)
	}
	sig, err := base64.StdEncoding.DecodeString(theirs.Signatures[0].Sig)
	if err != nil || len(sig) != 64 {
		t.Errorf("they read a signature of %d bytes (%v)", len(sig), err)
	}
}
