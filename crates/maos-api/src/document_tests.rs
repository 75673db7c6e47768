//! The scanner against what serde_json reads, on documents of every kind.

use serde_json::Value;

use super::*;

fn check(json: &str, expected: Result<(), Defect>) {
    let found = scan(json, 4).map_err(|(defect, _)| defect);
    assert_eq!(found, expected, "{json}");
}

#[test]
fn defects_are_found_wherever_they_are() {
    check(r#"{"a":[1,-2,3.5,1e10,"x\u0000\n\\"]}"#, Ok(()));
    check(r#"[[[[]]],[[[]]]]"#, Ok(()));
    check(r#"[[[[[]]]]]"#, Err(Defect::TooDeep));
    check(r#"{"a":{"b":{"c":{"d":{}}}}}"#, Err(Defect::TooDeep));
    check(r#""\ud83d\ude00""#, Ok(()));
    check(r#""\uD83D\uDE00""#, Ok(()));
    check(r#""\ud83d""#, Err(Defect::LoneSurrogate));
    check(r#""\ud83dx\ude00""#, Err(Defect::LoneSurrogate));
    check(r#""\ud83d\u0041""#, Err(Defect::LoneSurrogate));
    check(r#""\ude00""#, Err(Defect::LoneSurrogate));
    check(r#"{"\udead":1}"#, Err(Defect::LoneSurrogate));
    check(r#""\\ud83d""#, Ok(()));
    check(r#""\\\ud83d""#, Err(Defect::LoneSurrogate));
    check("18446744073709551615", Ok(()));
    check("18446744073709551616", Err(Defect::IntegerTooLarge));
    check("-9223372036854775808", Ok(()));
    check("-9223372036854775809", Err(Defect::IntegerTooLarge));
    check("[1e308,-1.7976931348623157e308]", Ok(()));
    check("[1e309]", Err(Defect::FloatTooLarge));
    check("-1e400", Err(Defect::FloatTooLarge));
    check(r#""1e999 [[[[[[ 99999999999999999999""#, Ok(()));
}

#[test]
fn a_defect_comes_with_its_place() {
    let json = "{\n  \"a\": 1e999\n}";
    let (_, at) = scan(json, 64).unwrap_err();
    assert_eq!(line_and_column(json, at), (2, 8));
}

/// A document of pseudo-random shape, and whether it has a defect of some kind.
fn grow(seed: &mut u64, depth: u32, out: &mut String) -> bool {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let roll = *seed >> 33;
    let leaves = [
        ("1", false),
        ("-7.25e3", false),
        ("18446744073709551615", false),
        ("18446744073709551616", true),
        ("1e309", true),
        ("\"a\\\"\\\\b\"", false),
        ("\"\\ud800\\udc00 \\u0000\"", false),
        ("\"\\udc00\\ud800\"", true),
        ("\"\\\\ud800\"", false),
        ("null", false),
        ("\"[{\"", false),
    ];
    if depth == 0 || roll.is_multiple_of(3) {
        let (text, defect) = leaves[usize::try_from(roll % 11).unwrap()];
        out.push_str(text);
        return defect;
    }
    let (open, close) = if roll.is_multiple_of(2) { ('[', ']') } else { ('{', '}') };
    let mut defect = false;
    out.push(open);
    for index in 0..roll % 4 {
        if index > 0 {
            out.push_str(" ,\n");
        }
        if open == '{' {
            out.push_str(&format!("\"k{index}\" : "));
        }
        defect |= grow(seed, depth - 1, out);
    }
    out.push(close);
    defect
}

#[test]
fn the_scan_agrees_with_a_full_parse_on_many_documents() {
    let mut defects_count = 0;
    for round in 0..20_000_u64 {
        let (mut seed, mut json) = (round, String::new());
        let defect = grow(&mut seed, 5, &mut json);
        serde_json::from_str::<&RawValue>(&json).expect("well-formed");
        assert_eq!(scan(&json, 64).is_err(), defect, "seed {round}: {json}");
        // The full parse turns integers beyond 64 bits into floats; the rest it refuses as well.
        let parsed = serde_json::from_str::<Value>(&json).is_ok();
        assert!(parsed || defect, "seed {round}: {json}");
        assert!(
            !parsed || !defect || json.contains("18446744073709551616"),
            "seed {round}: {json}"
        );
        defects_count += u32::from(defect);
    }
    assert!((1_000..19_000).contains(&defects_count), "{defects_count}");
}

#[test]
fn one_level_is_opened_and_the_rest_is_kept_as_it_came() {
    let opened = members(r#"{"a" : {"b":[1.0]}, "é\n":2, "a":3}"#).unwrap();
    let shown: Vec<(&str, &str)> = opened.0.iter().map(|(k, v)| (&**k, v.get())).collect();
    assert_eq!(shown, [("a", r#"{"b":[1.0]}"#), ("é\n", "2"), ("a", "3")]);
    assert_eq!(opened.value("a").map(RawValue::get), Some("3"));
    assert_eq!(member(r#"{"a":1,"b":{},"a":[2]}"#, "a").map(RawValue::get), Some("[2]"));
    assert!(member(r#"{"b":1}"#, "a").is_none() && member("[1]", "a").is_none());
    assert!(members("[1]").is_none() && text("1").is_none() && list("{}", 9).is_none());
    assert_eq!(text(r#""a\u0041""#).as_deref(), Some("aA"));
    assert!(matches!(list("[1,[2],3]", 3), Some(List::Entries(entries)) if entries.len() == 3));
    assert!(matches!(list("[1,[2],3]", 2), Some(List::TooLong { count: 3 })));
}
