//! Filters as a device answers them: upstream's own answers, but for patterns and expressions, which never match.

use anyhow::{Context as _, Result, ensure};
use choria_conformance::Kind;
use serde_json::{Value, json};

use crate::bench::{Case, Cases, Line, fixture};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn asked(vectors: &Value, filter: &Value) -> Case {
    let case = Case::new(Kind::Filter).bytes(vectors["identity"]["identity"].as_str().unwrap());
    let case = case.texts(&names(&vectors["agents"]["known"])).texts(&names(&vectors["classes"]["known"]));
    case.bytes(vectors["facts_json"].as_str().unwrap()).bytes(filter.to_string())
}

fn is_pattern(name: &Value) -> bool {
    name.as_str().is_some_and(|name| name.len() > 2 && name.starts_with('/') && name.ends_with('/'))
}

#[test]
fn lists_of_names_and_expressions() -> Result<()> {
    let vectors = fixture("filters/filters.json")?;
    let mut cases = Cases::default();
    for (section, member) in [("agents", "agent"), ("classes", "cf_class"), ("identity", "identity")] {
        for case in vectors[section]["cases"].as_array().context("no cases")? {
            let wanted = case["filter"].as_array().context("no filter")?;
            let filter = json!({ member: wanted });
            let matches = if wanted.is_empty() {
                // the vectors ask the matcher of one kind; a filter without that kind does not ask it
                true
            } else if wanted.iter().any(is_pattern) {
                // one identity is enough, of the others all must match
                section == "identity"
                    && case["match"] == true
                    && wanted.iter().any(|name| *name == vectors["identity"]["identity"])
            } else {
                case["match"] == true
            };
            let line = if matches { "match " } else { "no match " };
            cases.begins(format!("{section} {case}"), asked(&vectors, &filter), line);
        }
    }
    for case in vectors["compound"]["several_filters"].as_array().context("no compound filters")? {
        let exprs = case["exprs"].as_array().context("no expressions")?;
        let entries: Vec<Value> = exprs.iter().map(|expr| json!([{ "expr": expr }])).collect();
        let line = if entries.is_empty() { "match " } else { "no match " };
        cases.begins(case.to_string(), asked(&vectors, &json!({ "compound": entries })), line);
    }
    for case in vectors["compound"]["malformed"].as_array().context("no malformed filters")? {
        let filter = json!({ "compound": case["filter"] });
        let line = if case["match"] == true && case["filter"] == json!([]) { "match " } else { "no match " };
        cases.begins(case.to_string(), asked(&vectors, &filter), line);
    }
    ensure!(cases.hold()?.len() > 30, "where are the filters?");
    Ok(())
}

#[test]
fn every_fact_comparison_is_upstreams() -> Result<()> {
    let vectors = fixture("filters/filters.json")?;
    let values = names(&vectors["fact_values"]);
    let mut cases = Cases::default();
    let mut wanted = Vec::new();
    for (path, operators) in vectors["fact_results"].as_object().context("no results")? {
        for operator in names(&vectors["fact_operators"]) {
            let results = &operators[operator];
            let has = |list: &str, value: &str| {
                results[list].as_array().is_some_and(|list| list.iter().any(|known| known == value))
            };
            let line: String = values
                .iter()
                .map(|value| match (has("error", value), has("true", value)) {
                    (true, _) => 'e',
                    (false, true) => 't',
                    (false, false) => 'f',
                })
                .collect();
            let case = Case::new(Kind::Facts).bytes(vectors["facts_json"].as_str().context("no facts")?);
            let case = case.bytes(path).bytes(operator).texts(&values);
            if operator == "=~" {
                cases.add(format!("{path} {operator}"), case, Vec::new());
            } else {
                cases.is(format!("{path} {operator}"), case, line.clone());
            }
            wanted.push((operator.to_owned(), path.clone(), line));
        }
    }
    let lines = cases.hold()?;
    for (line, (operator, path, wanted)) in lines.iter().zip(&wanted) {
        // a device says of a pattern that it has none, and for the rest what upstream says
        let fits = line
            .chars()
            .zip(wanted.chars())
            .all(|(ours, theirs)| ours == 'p' && operator == "=~" || ours == theirs);
        ensure!(fits && line.len() == wanted.len(), "{path} {operator}: {line} instead of {wanted}");
    }
    ensure!(lines.iter().map(String::len).sum::<usize>() >= 23 * 8 * 31, "where are the comparisons?");
    Ok(())
}

#[test]
fn fact_expressions_are_taken_apart() -> Result<()> {
    let vectors = fixture("filters/filters.json")?;
    let mut cases = Cases::default();
    for case in vectors["parse_fact_filter"].as_array().context("no expressions")? {
        let input = case["input"].as_str().context("no input")?;
        let text = |name: &str| case[name].as_str().unwrap_or_default();
        let line = if case["error"] == true {
            Line::Is("refused".to_owned())
        } else {
            Line::Is(format!("ok {:?} {:?} {:?}", text("fact"), text("operator"), text("value")))
        };
        cases.add(input, Case::new(Kind::Expression).bytes(input), vec![line]);
    }
    assert_eq!(cases.hold()?.len(), 28);
    Ok(())
}
