package nearest

import "testing"

func TestOf(t *testing.T) {
	words := []string{"orders", "payments", "order-lines"}
	for _, c := range []struct{ word, want string }{
		{"oders", "orders"}, {"ordres", "orders"}, {"payment", "payments"},
		{"order_lines", "order-lines"}, {"shipping", ""}, {"", ""},
	} {
		if got := Of(c.word, words); got != c.want {
			t.Errorf("Of(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}
