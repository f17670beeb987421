package steps

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// rejection is a cause and the words by which a BRAS names it, in lower case
// and between bars; many a BRAS sends Chinese in GBK.
type rejection struct {
	code  diagnosis.Code
	words string
}

// rejections are asked in this order: what is more specific comes first.
//
// The texts are those that technicians know as error 691: norms and field
// guides list them, operators word them alike. FreeRADIUS adds its own for
// simultaneous use.
func rejections() [11]rejection {
	return [...]rejection{
		// Locked for failures, which are not sessions.
		{diagnosis.DialMACBlocked, "too many fail|too many auth|too many attempt|too many login|too many password|too many wrong|too many incorrect|次数过多|\xb4\xce\xca\xfd\xb9\xfd\xb6\xe0"},
		{diagnosis.AccountTooManySessions, "too many|already logged in|simultaneous|session limit|sessions exceeded|already online|maximum number of sessions|multiple login|" +
			"超出限制|超过限制|用户数超|已在线|重复登录|\xb3\xac\xb3\xf6\xcf\xde\xd6\xc6|\xb3\xac\xb9\xfd\xcf\xde\xd6\xc6|\xd3\xc3\xbb\xa7\xca\xfd\xb3\xac|\xd2\xd1\xd4\xda\xcf\xdf|\xd6\xd8\xb8\xb4\xb5\xc7\xc2\xbc"},
		{diagnosis.AccountBinding, "bind|wrong port|port mismatch|vlan mismatch|nas-port|calling-station|绑定|\xb0\xf3\xb6\xa8"},
		{diagnosis.AccountNoAccessAttribute, "access check|access-check|access attribute|校验属性|\xd0\xa3\xd1\xe9\xca\xf4\xd0\xd4"},
		{diagnosis.AccountPrepaid, "ocs|prepaid|balance|credit|quota|余额|\xd3\xe0\xb6\xee"},
		{diagnosis.AccountPoolExhausted, "pool|no address|no free ip|out of addresses|地址池|无地址|\xb5\xd8\xd6\xb7\xb3\xd8|\xce\xde\xb5\xd8\xd6\xb7"},
		{diagnosis.AccountBandwidthTemplate, "bandwidth|template|qos profile|模板|\xc4\xa3\xb0\xe5"},
		{diagnosis.AccountState, "suspend|disabled|locked|barred|expired|unpaid|inactive|not active|account state|user state|stopped|" +
			"状态|停机|欠费|暂停|锁定|冻结|\xd7\xb4\xcc\xac|\xcd\xa3\xbb\xfa|\xc7\xb7\xb7\xd1|\xd4\xdd\xcd\xa3|\xcb\xf8\xb6\xa8|\xb6\xb3\xbd\xe1"},
		{diagnosis.AccountNoSuchUser, "no such user|unknown user|user unknown|not found|not exist|no such account|unknown account|invalid user|" +
			"无此用户|不存在|未开户|\xce\xde\xb4\xcb\xd3\xc3\xbb\xa7|\xb2\xbb\xb4\xe6\xd4\xda|\xce\xb4\xbf\xaa\xbb\xa7"},
		{diagnosis.DialAuthNoAnswer, "timeout|timed out|no response|not respond|unreachable|超时|无响应|无应答|\xb3\xac\xca\xb1|\xce\xde\xcf\xec\xd3\xa6|\xce\xde\xd3\xa6\xb4\xf0"},
		{diagnosis.AccountWrongPassword, passwords},
	}
}

const (
	passwords = "password|passwd|credential|密码|口令|\xc3\xdc\xc2\xeb|\xbf\xda\xc1\xee"
	// names beside a password tell neither from the other: "wrong user name or
	// password".
	names = "username|user name|user or|user/|user and|account or|account/|name or|credential|用户名|用户或|账号|帐号|\xd3\xc3\xbb\xa7\xc3\xfb|\xd5\xca\xba\xc5|\xd5\xcb\xba\xc5"
)

// rejectCause reads a BRAS's text, in UTF-8 or GBK. Without a word it knows, or
// with words for both halves of a login, it is DialAuthFailed: rejected, and
// not told why.
func rejectCause(text string) diagnosis.Code {
	// Not strings.ToLower, which takes GBK for broken UTF-8 and replaces it.
	lower := []byte(text)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	text = string(lower)
	for _, r := range rejections() {
		if !says(text, r.words) {
			continue
		}
		if r.code == diagnosis.AccountNoSuchUser && says(text, passwords) || r.code == diagnosis.AccountWrongPassword && says(text, names) {
			break
		}
		return r.code
	}
	return diagnosis.DialAuthFailed
}

// says reports whether one of the words between bars is in text.
func says(text, words string) bool {
	for words != "" {
		var word string
		if word, words, _ = strings.Cut(words, "|"); strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// account reports whether a cause is one of the account's.
func account(code diagnosis.Code) bool { return strings.HasPrefix(string(code), "account.") }

// redact takes an account and its password out of a text.
func redact(text, user, password string) string {
	secrets := [...]string{user, password, ""}
	// Without the realm it is still the account's number.
	if name, _, _ := strings.Cut(user, "@"); len(name) >= 4 {
		secrets[2] = name
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// saying is a Measurement of a server's text, in hexadecimal beside if it is no
// UTF-8.
func saying(name, text, source, note string) acceptance.Measurement {
	m := value(name, text, source, note)
	if !utf8.ValidString(text) {
		const most = 255 // of which a record keeps the hexadecimal
		m.Raw = hex.EncodeToString([]byte(text[:min(len(text), most)]))
	}
	return m
}
