//! What somebody typed, as a query of the search index.
//!
//! Its law: the text is never read as syntax. Every word goes in as a quoted string; only a star at
//! a word's end means something: any ending.

/// Words of a search that count; the others are passed over.
const WORDS_MAX: usize = 16;

/// The query that finds what has all the words of `text`, in any order and case; `None` when there
/// is no word in it, so that nothing can be found.
pub(super) fn query(text: &str) -> Option<String> {
    let apart = |c: char| c.is_whitespace() || c.is_control();
    let mut query = String::new();
    let words = text.split(apart).filter(|word| word.chars().any(char::is_alphanumeric));
    for word in words.take(WORDS_MAX) {
        let (word, ending) = match word.strip_suffix('*') {
            Some(word) => (word, "*"),
            None => (word, ""),
        };
        if !query.is_empty() {
            query.push(' ');
        }
        query.push('"');
        query.push_str(&word.replace('"', "\"\""));
        query.push('"');
        query.push_str(ending);
    }
    (!query.is_empty()).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_quoted_and_only_a_last_star_means_something() {
        for (text, expected) in [
            ("one two", Some(r#""one" "two""#)),
            ("pre* x", Some(r#""pre"* "x""#)),
            (r#"a"b NEAR( OR"#, Some(r#""a""b" "NEAR(" "OR""#)),
            ("name:x ^y", Some(r#""name:x" "^y""#)),
            ("\0a\0", Some(r#""a""#)),
            ("  -- * \" ", None),
            ("", None),
        ] {
            assert_eq!(query(text).as_deref(), expected, "{text}");
        }
    }
}
