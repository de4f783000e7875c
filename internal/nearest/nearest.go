// Package nearest finds the word that somebody probably meant, for error messages such as
// `no topic "oders"; did you mean "orders"?`. It promises an answer only where one is near:
// at most a third of the letters differ. It does no ranking beyond that.
package nearest

// Of returns the candidate with the fewest edits (insert, delete, replace) to word, or "" where
// none is near. Among equals the first wins.
func Of(word string, candidates []string) string {
	best, bestEdits := "", len(word)/3+1
	for _, c := range candidates {
		if n := edits(word, c); n < bestEdits || n == bestEdits && best == "" && n <= len(word)/3+1 {
			best, bestEdits = c, n
		}
	}
	return best
}

func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
