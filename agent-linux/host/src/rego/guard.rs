//! What a policy text must not contain before the interpreter sees it, and before it runs.
//!
//! Two hazards are the parser's: nested `[` and `{` literals take exponential time, and the evaluation timer does not
//! cover parsing; so brackets are counted on the token stream first. The others are the evaluator's: it recurses on the
//! native stack, once per rule called and once per level of an expression, and an overflow ends the process. So the
//! reference graph of all rules must be free of cycles (as OPA demands too) and its longest chain is bounded.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    Expr, Import, Lexer, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead, TokenKind,
};
use regorus::{Engine, Source};

use super::{PolicyError, first_line};

/// Levels of `[` and `{` inside a rule body; the body's own brace is one more.
const MAX_NESTING: usize = 9;
/// Sum of 2^depth over all opening brackets: proportional to the parser's worst time.
const NESTING_BUDGET: u64 = 32 * 1024;
/// Minus signs in a row: the parser recurses once for each, without a limit of its own.
const MAX_SIGNS: usize = 8;
/// Levels of round brackets: the arguments of nested calls recurse in the parser without a limit of its own.
const MAX_ROUND: usize = 24;
/// Levels of expressions, queries and calls on the longest chain of rules.
const MAX_DEPTH: usize = 160;

/// What the token stream says about the dialect.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Why the text can only be meant as v1, when something says so.
    pub(super) v1: Option<&'static str>,
}

/// Reads the tokens once: bounds brackets and looks for signs of v1.
pub(super) fn scan(text: &str) -> Result<Signs, PolicyError> {
    let lexical = |error: &dyn std::fmt::Display| PolicyError::Lexical(first_line(&error.to_string()));
    if text.bytes().any(|b| b.is_ascii_control() && !matches!(b, b'\t' | b'\n' | b'\r')) {
        return Err(PolicyError::Lexical("the text contains control characters".to_owned()));
    }
    let source = Source::from_contents("policy.rego".to_owned(), text.to_owned()).map_err(|e| lexical(&e))?;
    let mut lexer = Lexer::new(&source);
    lexer.set_max_col(std::num::NonZeroU32::MAX);
    let mut signs = Signs::default();
    let (mut depth, mut round, mut minus_signs, mut budget) = (0usize, 0usize, 0usize, 0u64);
    let mut before = String::new();
    let mut keyword_imports = BTreeSet::new();
    let mut keywords_used = BTreeSet::new();
    loop {
        let token = lexer.next_token().map_err(|e| lexical(&e))?;
        let word = token.1.text();
        match token.0 {
            TokenKind::Eof => break,
            TokenKind::Symbol if word == "-" => {
                minus_signs = minus_signs.saturating_add(1);
                if minus_signs > MAX_SIGNS {
                    return Err(PolicyError::Nesting { depth: minus_signs, limit: MAX_SIGNS });
                }
            }
            TokenKind::Symbol => match word {
                "[" | "{" => {
                    depth = depth.saturating_add(1);
                    if depth > MAX_NESTING {
                        return Err(PolicyError::Nesting {
                            depth: depth.saturating_sub(1),
                            limit: MAX_NESTING - 1,
                        });
                    }
                    budget = budget.saturating_add(1u64 << depth);
                    if budget > NESTING_BUDGET {
                        return Err(PolicyError::NestingBudget);
                    }
                }
                "(" => {
                    round = round.saturating_add(1);
                    if round > MAX_ROUND {
                        return Err(PolicyError::Nesting { depth: round, limit: MAX_ROUND });
                    }
                }
                ")" => round = round.saturating_sub(1),
                "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            },
            TokenKind::Number if !super::bounded::modest_number(word) => {
                return Err(PolicyError::Lexical(
                    "a number has too many digits or too large an exponent".to_owned(),
                ));
            }
            TokenKind::Ident => match word {
                "__target__" => return Err(PolicyError::Unavailable { name: word.to_owned() }),
                _ if before == "keywords." => {
                    keyword_imports.insert(word.to_owned());
                }
                "if" => {
                    signs.v1 = Some(
                        "it uses the keyword 'if'; to a v0 reader that is an ordinary name and the rule before it would always hold",
                    )
                }
                // Inside a body `contains(a, b)` is the string function of both dialects.
                "contains" if depth == 0 && !matches!(before.as_str(), "=" | ":=" | "(" | "," | "not") => {
                    signs.v1 = signs.v1.or(Some("it uses the keyword 'contains'"));
                }
                "in" | "every" => {
                    keywords_used.insert(word.to_owned());
                }
                "v1" if before == "rego." => signs.v1 = signs.v1.or(Some("it imports rego.v1")),
                "keywords" if before == "future." => {
                    // A bare `import future.keywords` brings in all of them.
                    keyword_imports.insert("*".to_owned());
                }
                _ => {}
            },
            _ => {}
        }
        if word != "-" {
            minus_signs = 0;
        }
        // Only what a following token needs: the last name with its dot, or the last symbol.
        before = match (token.0, word, before.as_str()) {
            (TokenKind::Symbol, ".", last @ ("rego" | "future" | "keywords")) => format!("{last}."),
            _ => word.to_owned(),
        };
    }
    if keyword_imports.len() > 1 {
        // `import future.keywords.in` is not the bare import.
        keyword_imports.remove("*");
    }
    let missing = |word: &String| !keyword_imports.contains("*") && !keyword_imports.contains(word);
    if keywords_used.iter().any(missing) {
        signs.v1 = signs.v1.or(Some("it uses 'in' or 'every' without importing them, which only v1 allows"));
    }
    Ok(signs)
}

/// Checks the parsed rules of `engine`: no recursion, bounded depth.
pub(super) fn check_rules(engine: &mut Engine) -> Result<(), PolicyError> {
    let modules = engine.get_modules();
    let mut graph = Graph::default();
    for module in modules.iter() {
        graph.add_module(module)?;
    }
    graph.check()
}

#[derive(Default)]
struct Graph {
    rules: BTreeMap<String, Node>,
}

#[derive(Default)]
struct Node {
    /// Deepest expression of any rule of this name.
    depth: usize,
    mentions: BTreeSet<String>,
}

/// Something still to be visited, with its depth.
enum Visit<'a> {
    Expr(&'a Ref<Expr>, usize),
    Query(&'a Ref<Query>, usize),
}

impl Graph {
    fn add_module(&mut self, module: &Module) -> Result<(), PolicyError> {
        let package = plain_path(&module.package.refr);
        let aliases = module.imports.iter().filter_map(alias).collect::<BTreeMap<_, _>>();
        let scope = Scope { package: package.parts, aliases };
        for rule in &module.policy {
            let mut visits = Vec::new();
            let head = match rule.as_ref() {
                Rule::Spec { head, bodies, .. } => {
                    for body in bodies {
                        visit_assign(body.assign.as_ref(), &mut visits);
                        visits.push(Visit::Query(&body.query, 1));
                    }
                    match head {
                        RuleHead::Compr { refr, assign, .. } => {
                            visit_assign(assign.as_ref(), &mut visits);
                            refr
                        }
                        RuleHead::Set { refr, key, .. } => {
                            visits.extend(key.iter().map(|key| Visit::Expr(key, 1)));
                            refr
                        }
                        RuleHead::Func { refr, args, assign, .. } => {
                            visits.extend(args.iter().map(|argument| Visit::Expr(argument, 1)));
                            visit_assign(assign.as_ref(), &mut visits);
                            refr
                        }
                    }
                }
                Rule::Default { refr, args, value, .. } => {
                    visits.extend(args.iter().map(|argument| Visit::Expr(argument, 1)));
                    visits.push(Visit::Expr(value, 1));
                    refr
                }
            };
            let path = plain_path(head);
            // `deny[f(x)]` evaluates its brackets.
            visits.extend(path.dynamic.into_iter().map(|index| Visit::Expr(index, 1)));
            let Some(name) = path.parts.first() else { continue };
            let node = self.rules.entry(name.clone()).or_default();
            scope.walk(visits, node)?;
        }
        Ok(())
    }

    /// No cycles, and the longest chain of rules, weighed by their expressions, within [`MAX_DEPTH`].
    fn check(&self) -> Result<(), PolicyError> {
        let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
        let mut callers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, node) in &self.rules {
            let known: Vec<&str> =
                node.mentions.iter().map(String::as_str).filter(|m| self.rules.contains_key(*m)).collect();
            waiting.insert(name, known.len());
            for mention in known {
                callers.entry(mention).or_default().push(name);
            }
        }
        let mut ready: Vec<&str> =
            waiting.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
        let mut below: BTreeMap<&str, usize> = BTreeMap::new();
        let mut done = 0usize;
        while let Some(name) = ready.pop() {
            done = done.saturating_add(1);
            let own = self.rules.get(name).map_or(0, |node| node.depth);
            let total = below.get(name).copied().unwrap_or(0).saturating_add(own).saturating_add(1);
            if total > MAX_DEPTH {
                return Err(PolicyError::Depth { depth: total, limit: MAX_DEPTH });
            }
            for caller in callers.get(name).into_iter().flatten().copied() {
                let deepest = below.entry(caller).or_default();
                *deepest = (*deepest).max(total);
                if let Some(count) = waiting.get_mut(caller) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        ready.push(caller);
                    }
                }
            }
        }
        if done == self.rules.len() {
            return Ok(());
        }
        let name = waiting.iter().find(|(_, count)| **count > 0).map(|(name, _)| (*name).to_owned());
        Err(PolicyError::Recursion { name: name.unwrap_or_default() })
    }
}

fn visit_assign<'a>(assign: Option<&'a RuleAssign>, visits: &mut Vec<Visit<'a>>) {
    visits.extend(assign.map(|assign| Visit::Expr(&assign.value, 1)));
}

struct Scope {
    package: Vec<String>,
    aliases: BTreeMap<String, Vec<String>>,
}

impl Scope {
    /// Visits everything below `visits` with a list of its own: the text decides how deep that is.
    fn walk<'a>(&self, mut visits: Vec<Visit<'a>>, node: &mut Node) -> Result<(), PolicyError> {
        while let Some(visit) = visits.pop() {
            let depth = match &visit {
                Visit::Expr(_, depth) | Visit::Query(_, depth) => *depth,
            };
            node.depth = node.depth.max(depth);
            if depth > MAX_DEPTH {
                return Err(PolicyError::Depth { depth, limit: MAX_DEPTH });
            }
            let next = depth.saturating_add(1);
            match visit {
                Visit::Expr(expr, _) => self.visit_expr(expr, next, &mut visits, node)?,
                Visit::Query(query, _) => visit_query(query, next, &mut visits),
            }
        }
        Ok(())
    }

    fn visit_expr<'a>(
        &self,
        expr: &'a Ref<Expr>,
        next: usize,
        visits: &mut Vec<Visit<'a>>,
        node: &mut Node,
    ) -> Result<(), PolicyError> {
        let mut push = |expr: &'a Ref<Expr>| visits.push(Visit::Expr(expr, next));
        match expr.as_ref() {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                let path = plain_path(expr);
                self.mention(&path, node)?;
                // Each step of a long path is one more level for the evaluator.
                let steps = path.parts.len().saturating_add(path.dynamic.len());
                let level = next.saturating_add(steps);
                node.depth = node.depth.max(level);
                visits.extend(path.dynamic.into_iter().map(|index| Visit::Expr(index, level)));
                visits.extend(path.root.map(|root| Visit::Expr(root, level)));
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(push),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
                push(key);
                push(value);
            }),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                push(term);
                visits.push(Visit::Query(query, next));
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                push(key);
                push(value);
                visits.push(Visit::Query(query, next));
            }
            Expr::Call { fcn, params, .. } => {
                push(fcn);
                params.iter().for_each(push);
            }
            Expr::UnaryExpr { expr, .. } => push(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                push(lhs);
                push(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().for_each(&mut push);
                push(value);
                push(collection);
            }
        }
        Ok(())
    }

    /// Records which rule of the policy a path may mean.
    fn mention(&self, path: &Path<'_>, node: &mut Node) -> Result<(), PolicyError> {
        let Some(root) = path.parts.first() else { return Ok(()) };
        let (full, literal) = match self.aliases.get(root) {
            Some(target) => {
                let rest = path.parts.iter().skip(1).cloned();
                let literal = path.literal.saturating_add(target.len()).saturating_sub(1);
                (target.iter().cloned().chain(rest).collect::<Vec<_>>(), literal)
            }
            None => (path.parts.clone(), path.literal),
        };
        // A local name may be a rule whatever the imports say.
        node.mentions.insert(root.clone());
        if full.first().map(String::as_str) != Some("data") {
            return Ok(());
        }
        let tail = full.get(1..).unwrap_or_default();
        let literal = literal.saturating_sub(1);
        let common = tail.iter().zip(&self.package).take_while(|(a, b)| a == b).count().min(literal);
        if common == self.package.len()
            && literal > common
            && let Some(name) = tail.get(common)
        {
            node.mentions.insert(name.clone());
            return Ok(());
        }
        // It leaves the package before its end: nothing there. Or it ends, or becomes variable, above a rule: then it
        // means every rule of the package, its own among them.
        if literal > common {
            return Ok(());
        }
        Err(PolicyError::WholePackage { reference: full.join(".") })
    }
}

fn visit_query<'a>(query: &'a Ref<Query>, next: usize, visits: &mut Vec<Visit<'a>>) {
    for statement in &query.stmts {
        for modifier in &statement.with_mods {
            visits.push(Visit::Expr(&modifier.refr, next));
            visits.push(Visit::Expr(&modifier.r#as, next));
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                visits.extend(key.iter().map(|key| Visit::Expr(key, next)));
                visits.push(Visit::Expr(value, next));
                visits.push(Visit::Expr(collection, next));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                visits.push(Visit::Expr(expr, next))
            }
            Literal::Every { domain, query, .. } => {
                visits.push(Visit::Expr(domain, next));
                visits.push(Visit::Query(query, next));
            }
        }
    }
}

/// A reference taken apart: `a.b["c"][x]` has parts a, b, c (three of them literal before the first variable one).
struct Path<'a> {
    parts: Vec<String>,
    /// How many leading parts come before the first variable index.
    literal: usize,
    dynamic: Vec<&'a Ref<Expr>>,
    /// The expression that the path starts from when that is not a name.
    root: Option<&'a Ref<Expr>>,
}

fn plain_path(expr: &Ref<Expr>) -> Path<'_> {
    let mut path = Path { parts: Vec::new(), literal: 0, dynamic: Vec::new(), root: None };
    let mut cursor = expr;
    // From the right end to the root, so a variable index restarts the count of literal parts to its right.
    let mut right_of_variable = 0usize;
    loop {
        match cursor.as_ref() {
            Expr::Var { span, .. } => {
                path.parts.push(span.text().to_owned());
                break;
            }
            Expr::RefDot { refr, field, .. } => {
                path.parts.push(field.0.text().to_owned());
                cursor = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                match index.as_ref() {
                    Expr::String { value, .. } => match value.as_string() {
                        Ok(text) => path.parts.push(text.as_ref().to_owned()),
                        Err(_) => path.dynamic.push(index),
                    },
                    _ => {
                        right_of_variable = path.parts.len();
                        path.dynamic.push(index);
                    }
                }
                cursor = refr;
            }
            _ => {
                path.root = Some(cursor);
                break;
            }
        }
    }
    path.parts.reverse();
    path.literal = path.parts.len().saturating_sub(right_of_variable);
    path
}

fn alias(import: &Import) -> Option<(String, Vec<String>)> {
    let target = plain_path(&import.refr).parts;
    let name = match &import.r#as {
        Some(span) => span.text().to_owned(),
        None => target.last()?.clone(),
    };
    Some((name, target))
}
