package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"ontagent/config"
)

func TestSecretNeverPrints(t *testing.T) {
	const word = "hunter22"
	secret := config.Secret(word)
	c := config.Default()
	c.MQTT.Password, c.Console.Password = secret, secret

	asJSON := func(v any) string {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	logged := func(h func(*bytes.Buffer) slog.Handler) string {
		var out bytes.Buffer
		log := slog.New(h(&out))
		log.Info("message", "secret", secret, "config", c, "pointer", &c, "slice", []config.Secret{secret}, "error", fmt.Errorf("with %v", secret))
		return out.String()
	}
	printed := map[string]string{
		"json":        asJSON(secret),
		"json struct": asJSON(c),
		"slog text":   logged(func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }),
		"slog json":   logged(func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }),
		"error":       errors.Join(fmt.Errorf("cannot use %q", secret)).Error(),
		"concat":      fmt.Sprint(secret, &secret),
	}
	for verb := range strings.FieldsSeq("%v %+v %#v %s %q %#q %x %X %d %T%v %10s %-5.3s %U") {
		printed[verb] = fmt.Sprintf(verb, secret, secret)
		printed["struct "+verb] = fmt.Sprintf(verb, c, c)
		printed["pointer "+verb] = fmt.Sprintf(verb, &c.MQTT, &c.MQTT)
		printed["slice "+verb] = fmt.Sprintf(verb, []config.Secret{secret}, []config.Secret{secret})
	}
	for how, text := range printed {
		hexed := fmt.Sprintf("%x", word)
		if strings.Contains(text, word) || strings.Contains(strings.ToLower(text), hexed) || strings.Contains(text, word[:3]) {
			t.Errorf("%s prints the secret", how)
		}
		if !strings.Contains(text, "***") {
			t.Errorf("%s prints no ***: %s", how, text)
		}
	}
	for _, text := range []string{secret.String(), secret.GoString()} {
		if text != "***" {
			t.Error("String or GoString print something else than ***")
		}
	}
	if secret.Reveal() != word {
		t.Error("Reveal doesn't")
	}
}
