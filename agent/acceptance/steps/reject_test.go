package steps

import (
	"strings"
	"testing"

	"ontagent/agent/diagnosis"
)

func TestRejectCause(t *testing.T) {
	for text, want := range map[string]diagnosis.Code{
		"":                                          diagnosis.DialAuthFailed,
		"Login incorrect":                           diagnosis.DialAuthFailed,
		"Authentication failure":                    diagnosis.DialAuthFailed,
		"Invalid username or password":              diagnosis.DialAuthFailed,
		"用户名或密码错误":                                  diagnosis.DialAuthFailed,
		"691 无此用户":                                  diagnosis.AccountNoSuchUser,
		"Unknown user":                              diagnosis.AccountNoSuchUser,
		"\xce\xde\xb4\xcb\xd3\xc3\xbb\xa7":          diagnosis.AccountNoSuchUser,
		"密码错":                                       diagnosis.AccountWrongPassword,
		"Wrong Password":                            diagnosis.AccountWrongPassword,
		"\xc3\xdc\xc2\xeb\xb4\xed":                  diagnosis.AccountWrongPassword,
		"状态错":                                       diagnosis.AccountState,
		"用户欠费停机":                                    diagnosis.AccountState,
		"Account suspended":                         diagnosis.AccountState,
		"无认证接入校验属性":                                 diagnosis.AccountNoAccessAttribute,
		"超出限制的用户数":                                  diagnosis.AccountTooManySessions,
		"You are already logged in - access denied": diagnosis.AccountTooManySessions,
		"\r\nYou are already logged in 1 times  - access denied\r\n\n": diagnosis.AccountTooManySessions,
		"绑定校验错":                        diagnosis.AccountBinding,
		"VLAN binding check failed":    diagnosis.AccountBinding,
		"OCS_Err":                      diagnosis.AccountPrepaid,
		"Address pool exhausted":       diagnosis.AccountPoolExhausted,
		"bandwidth template not found": diagnosis.AccountBandwidthTemplate,
		"RADIUS server timeout":        diagnosis.DialAuthNoAnswer,
		"认证服务器无响应":                     diagnosis.DialAuthNoAnswer,
		"\xce\xde\xcf\xec\xd3\xa6":     diagnosis.DialAuthNoAnswer,
		"Access-Reject from RADIUS":    diagnosis.DialAuthFailed,

		// Both halves of a login tell neither.
		"Invalid username/password":                                diagnosis.DialAuthFailed,
		"Invalid user credentials":                                 diagnosis.DialAuthFailed,
		"No such user or wrong password":                           diagnosis.DialAuthFailed,
		"用户不存在或密码错误":                                               diagnosis.DialAuthFailed,
		"账号或密码错误":                                                  diagnosis.DialAuthFailed,
		"\xd3\xc3\xbb\xa7\xc3\xfb\xbb\xf2\xc3\xdc\xc2\xeb\xb4\xed": diagnosis.DialAuthFailed,
		"用户名不存在":                                                   diagnosis.AccountNoSuchUser,
		"用户密码错误":                                                   diagnosis.AccountWrongPassword,
		"User not found":                                           diagnosis.AccountNoSuchUser,
		"\xd3\xc3\xbb\xa7\xc3\xfb\xb2\xbb\xb4\xe6\xd4\xda":         diagnosis.AccountNoSuchUser,

		// Locked for failures, which are not sessions.
		"Too many failed attempts, account locked":                         diagnosis.DialMACBlocked,
		"Too many authentication failures":                                 diagnosis.DialMACBlocked,
		"密码错误次数过多":                                                         diagnosis.DialMACBlocked,
		"Too many sessions for this user":                                  diagnosis.AccountTooManySessions,
		"\xb3\xac\xb3\xf6\xcf\xde\xd6\xc6\xb5\xc4\xd3\xc3\xbb\xa7\xca\xfd": diagnosis.AccountTooManySessions,
		"password expired":                                                 diagnosis.AccountState,
	} {
		if got := rejectCause(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, tt := range []struct{ text, user, password, want string }{
		{"", "", "", ""},
		{"a b", "", "", "a b"},
		{"user abcd@x and abcd and pw", "abcd@x", "pw", "user *** and *** and ***"},
		{"abc@x abc", "abc@x", "", "*** abc"},
		{"1 2 1", "", "1", "*** 2 ***"},
	} {
		if got := redact(tt.text, tt.user, tt.password); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestRejectionWords: words are in lower case, and none is empty, which would
// be in every text.
func TestRejectionWords(t *testing.T) {
	all := []string{names}
	for _, r := range rejections() {
		all = append(all, r.words)
	}
	for _, words := range all {
		for word := range strings.SplitSeq(words, "|") {
			if word == "" || strings.ContainsFunc(word, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
				t.Errorf("word %q in %q", word, words)
			}
		}
	}
}
