package agent

import (
	"encoding/json"

	"ontagent/transport"
)

// Document queues an event whose body is made elsewhere.
func (r *Reporter) Document(name string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		r.Log.Error("cannot encode event", "name", name, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: transport.ClassEvent, Kind: transport.KindEvent, Name: name, Body: body})
}
