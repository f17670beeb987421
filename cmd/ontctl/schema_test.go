package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ontagent/agent/order"
	"ontagent/transport"
)

// TestSignedDocumentsAreAsDescribed holds what is signed here to docs/mqtt-api.
func TestSignedDocumentsAreAsDescribed(t *testing.T) {
	n := uint32(60)
	for schema, doc := range map[string]any{
		"ack-payload": order.Ack{
			V: 1, Tenant: "isp", Device: device, Version: 1<<64 - 1,
			Points: []transport.Point{{Class: transport.ClassEvent, Epoch: 1<<64 - 1, Seq: 1<<64 - 1}, {Class: transport.ClassEvent, Epoch: 1, Seq: 1}},
			Stored: []transport.Stored{{Class: transport.ClassRecord, Epoch: 1<<64 - 1, Seq: 1<<64 - 1, SHA256: strings.Repeat("0f", 32)}},
		},
		"cfg-payload": order.Config{V: 1, Tenant: "isp", Version: 1, Settings: order.Settings{
			SpreadS: &n, BackoffCapS: &n, KeepaliveS: &n, BackfillBytesPerS: func() *uint32 { n := uint32(4096); return &n }(),
		}},
	} {
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "docs", "mqtt-api", "schema", schema+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
}
