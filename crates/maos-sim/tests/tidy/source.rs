//! Reads Rust source as far as the checks need it: what is code and what is not, and where
//! functions begin and end. A scanner, not a parser: it relies on the compiler having accepted the
//! file.

/// One function and its extent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`, counted from 1.
    pub(crate) line: usize,
    /// From `fn` to its closing brace, both counted.
    pub(crate) lines_count: usize,
}

/// The source with everything in comments, strings and character literals turned into spaces. Line
/// ends and columns stay.
pub(crate) fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut masked = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = end_of_opaque(&text, at);
        if end > at {
            masked.extend(text[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            masked.push(text[at]);
            at += 1;
        }
    }
    masked
}

/// The code in front of the file's own tests.
pub(crate) fn shipped(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let after = from + found + "#[cfg(test)]".len();
        let next = code[after..].trim_start();
        let inline = |rest: &str| rest[identifier(rest).len()..].trim_start().starts_with('{');
        if next.strip_prefix("mod ").is_some_and(inline) {
            return &code[..from + found];
        }
        from = after;
    }
    code
}

/// The line of a byte offset, counted from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Offsets at which `word` stands by itself.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(offset, _)| offset).filter(move |offset| {
        !code[..*offset].ends_with(part_of_word)
            && !code[offset + word.len()..].starts_with(part_of_word)
    })
}

/// The identifier at the start of `code`, empty if there is none.
pub(crate) fn identifier(code: &str) -> &str {
    let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len());
    &code[..end]
}

/// All functions with a body, in order.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    words(code, "fn")
        .filter_map(|offset| {
            let name = identifier(code[offset + 2..].trim_start());
            let body = (!name.is_empty()).then(|| body_end(&code[offset..])).flatten()?;
            let lines_count = code[offset..offset + body].matches('\n').count() + 1;
            Some(Function { name: name.to_owned(), line: line_of(code, offset), lines_count })
        })
        .collect()
}

/// The offset behind the closing brace of the first body; nothing for a declaration without one.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (offset, c) in code.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.checked_sub(1)?,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn end_of_opaque(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match (text[at], next) {
        ('/', Some('/')) => find(text, at, |rest| rest[0] == '\n'),
        ('/', Some('*')) => end_of_block_comment(text, at),
        ('"', _) => end_of_string(text, at + 1),
        ('r', Some('"' | '#')) if starts_literal(text, at) => end_of_raw_string(text, at),
        ('\'', Some('\\')) => find(text, at + 3, |rest| rest[0] == '\'') + 1,
        ('\'', Some(_)) if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

/// Whether the `r` at `at` begins a literal rather than ending an identifier; `br` and `cr` do too.
fn starts_literal(text: &[char], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).map_or(' ', |index| text[index]);
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    !part_of_word(before(1)) || (matches!(before(1), 'b' | 'c') && !part_of_word(before(2)))
}

fn end_of_block_comment(text: &[char], at: usize) -> usize {
    let (mut depth, mut here) = (0_usize, at);
    while here < text.len() {
        match &text[here..text.len().min(here + 2)] {
            ['/', '*'] => (depth, here) = (depth + 1, here + 2),
            ['*', '/'] if depth == 1 => return here + 2,
            ['*', '/'] => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
    }
    here
}

fn end_of_string(text: &[char], mut here: usize) -> usize {
    while here < text.len() && text[here] != '"' {
        here += if text[here] == '\\' { 2 } else { 1 };
    }
    text.len().min(here + 1)
}

/// `r#name` is an identifier and stays.
fn end_of_raw_string(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
    if text.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#')
    };
    text.len().min(find(text, at + 2 + hashes, closes) + 1 + hashes)
}

fn find(text: &[char], from: usize, holds: impl Fn(&[char]) -> bool) -> usize {
    (from..text.len()).find(|here| holds(&text[*here..])).unwrap_or(text.len())
}

#[test]
fn only_code_is_left_of_a_source() {
    let source = concat!(
        "fn a() { b(\"fn x() {\\\"\"); } // fn y() {\n",
        "/* fn /* z */ { */ let c = '{'; let d = '\\''; fn e<'a>(r: &'a str) {}\n",
        "let f = r#\"} \" fn\"#; let g = br\"}\"; let r#fn = 1;",
    );
    let blank = |count| " ".repeat(count);
    let wanted = [
        format!("fn a() {{ b({}); }}{}\n", blank(12), blank(12)),
        format!("{}let c = {}; let d = {}; ", blank(19), blank(3), blank(4)),
        format!("fn e<'a>(r: &'a str) {{}}\nlet f = {}; ", blank(11)),
        format!("let g = b{}; let r#fn = 1;", blank(4)),
    ]
    .concat();
    assert_eq!(code(source), wanted);
}

#[test]
fn functions_are_found_with_their_extent() {
    let source = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\nfn outer(f: fn(u8)) {\n    \
                  fn inner() {}\n    if true {\n    }\n}\n";
    let named =
        |name: &str, line, lines_count| Function { name: name.to_owned(), line, lines_count };
    assert_eq!(functions(source), [named("outer", 4, 5), named("inner", 5, 1)]);
}

#[test]
fn the_tests_of_a_file_are_not_shipped() {
    assert_eq!(shipped("use a;\n#[cfg(test)]\nmod tests {\nuse b;\n}"), "use a;\n");
    let apart = "#[cfg(test)]\nmod tests;\nuse a;\n";
    assert_eq!(shipped(apart), apart);
}
