//! What is measured beside what, as ratios with their spread: a shared machine's figures wander
//! from minute to minute, the ratio of two runs taken in turn does not.

use serde_json::json;

/// How a pair of figures becomes a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// More is better: ours ÷ reference, the share of the reference that we reach.
    Rate,
    /// Less is better: reference ÷ ours, again the share that we reach.
    Cost,
    /// What something grows to: ours ÷ reference, 1 where it doesn't grow.
    Growth,
}

/// What a figure should come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// The ratio, at least.
    AtLeast(f64),
    /// The ratio, at most.
    AtMost(f64),
    /// Our own figure, below this, in the figure's unit.
    Below(f64),
    /// Nothing was aimed at.
    Open,
}

/// One figure over several rounds, ours and the reference's in turn.
#[derive(Clone, Debug)]
pub struct Figure {
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    aim: Aim,
    rounds: Vec<(f64, Option<f64>)>,
}

/// A figure summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The unit of `ours` and `reference`.
    pub unit: &'static str,
    /// The median of ours.
    pub ours: f64,
    /// The median of the reference's, where there is one.
    pub reference: Option<f64>,
    /// The median, least and greatest ratio of a round.
    pub ratio: Option<[f64; 3]>,
    /// What was aimed at.
    pub aim: Aim,
}

impl Figure {
    /// A figure without a round yet.
    pub fn new(name: &'static str, unit: &'static str, kind: Kind, aim: Aim) -> Self {
        Self { name, unit, kind, aim, rounds: Vec::new() }
    }

    /// Adds a round: ours beside the reference.
    pub fn pair(&mut self, ours: f64, reference: f64) {
        self.rounds.push((ours, Some(reference)));
    }

    /// Adds a round that has no reference.
    pub fn alone(&mut self, ours: f64) {
        self.rounds.push((ours, None));
    }

    /// Sums up; nothing where no round was made.
    pub fn row(&self) -> Option<Row> {
        let ours = median(self.rounds.iter().map(|(ours, _)| *ours).collect())?;
        let reference = median(self.rounds.iter().filter_map(|(_, other)| *other).collect());
        let ratios: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|(ours, reference)| Some(self.ratio(*ours, (*reference)?)))
            .collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratio = median(ratios).map(|middle| [middle, least, most]);
        let (name, unit, aim) = (self.name, self.unit, self.aim);
        Some(Row { name, unit, ours, reference, ratio, aim })
    }

    fn ratio(&self, ours: f64, reference: f64) -> f64 {
        match self.kind {
            Kind::Rate | Kind::Growth => ours / reference,
            Kind::Cost => reference / ours,
        }
    }
}

impl Row {
    /// Whether the aim was met; nothing where none was set.
    pub fn met(&self) -> Option<bool> {
        let ratio = self.ratio.map(|[middle, ..]| middle);
        match self.aim {
            Aim::AtLeast(least) => ratio.map(|ratio| ratio >= least),
            Aim::AtMost(most) => ratio.map(|ratio| ratio <= most),
            Aim::Below(limit) => Some(self.ours < limit),
            Aim::Open => None,
        }
    }

    fn aim_text(&self) -> Option<String> {
        match self.aim {
            Aim::AtLeast(least) => Some(format!("ratio >= {least}")),
            Aim::AtMost(most) => Some(format!("ratio <= {most}")),
            Aim::Below(limit) => Some(format!("ours < {limit} {}", self.unit)),
            Aim::Open => None,
        }
    }

    /// The row for a machine: one line of JSON.
    pub fn to_json(&self) -> String {
        let part = |at: usize| self.ratio.map(|ratio| rounded(ratio[at]));
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": rounded(self.ours),
            "reference": self.reference.map(rounded),
            "ratio": part(0),
            "ratio_min": part(1),
            "ratio_max": part(2),
            "aim": self.aim_text(),
            "met": self.met(),
        })
        .to_string()
    }

    /// The row for a person.
    pub fn to_text(&self) -> String {
        let figure = |value: f64| format!("{} {}", readable(value), self.unit);
        let reference = self.reference.map_or("-".to_owned(), figure);
        let ratio = self.ratio.map_or("-".to_owned(), |[middle, least, most]| {
            format!("{middle:.2} [{least:.2}..{most:.2}]")
        });
        let verdict = match (self.aim_text(), self.met()) {
            (Some(aim), Some(true)) => format!("{aim}: met"),
            (Some(aim), Some(false) | None) => format!("{aim}: NOT MET"),
            (None, _) => String::new(),
        };
        let line = format!(
            "{:<36} {:>20} {:>20}  {:<20}  {verdict}",
            self.name,
            figure(self.ours),
            reference,
            ratio
        );
        line.trim_end().to_owned()
    }
}

/// Prints rows as they come.
#[derive(Clone, Debug)]
pub struct Report {
    json: bool,
    names: Vec<String>,
}

impl Report {
    /// A report of the figures whose names hold one of `names`; of all when there is none.
    pub fn new(json: bool, names: Vec<String>) -> Self {
        if !json {
            println!("{:<36} {:>20} {:>20}  ratio [least..most]", "", "ours", "reference");
        }
        Self { json, names }
    }

    /// Whether this figure is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    /// Whether one of these figures is.
    pub fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Prints a figure, if it is asked for and was measured.
    pub fn tell(&self, figure: &Figure) {
        let Some(row) = figure.row().filter(|row| self.wants(row.name)) else { return };
        if self.json {
            println!("{}", row.to_json());
        } else {
            println!("{}", row.to_text());
        }
    }
}

/// Says loudly that something can't be measured here.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn readable(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, aim: Aim, rounds: &[(f64, f64)]) -> Row {
        let mut figure = Figure::new("a", "x", kind, aim);
        rounds.iter().for_each(|(ours, reference)| figure.pair(*ours, *reference));
        figure.row().expect("a round")
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_with_its_spread() {
        let rounds = [(70.0, 100.0), (90.0, 100.0), (40.0, 50.0)];
        let row = row(Kind::Rate, Aim::AtLeast(0.8), &rounds);
        assert_eq!(row.ratio, Some([0.8, 0.7, 0.9]));
        assert_eq!((row.ours, row.reference, row.met()), (70.0, Some(100.0), Some(true)));
    }

    #[test]
    fn a_cost_above_the_reference_is_a_share_below_one() {
        let cost = row(Kind::Cost, Aim::AtLeast(0.7), &[(20.0, 10.0)]);
        assert_eq!((cost.ratio, cost.met()), (Some([0.5; 3]), Some(false)));
        let growth = row(Kind::Growth, Aim::AtMost(1.5), &[(20.0, 10.0)]);
        assert_eq!((growth.ratio, growth.met()), (Some([2.0; 3]), Some(false)));
    }

    #[test]
    fn a_line_for_a_machine_has_every_member() {
        let mut figure = Figure::new("a", "us", Kind::Cost, Aim::Below(2.0));
        figure.alone(1.0);
        let line = figure.row().expect("a round").to_json();
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let expected = json!({
            "name": "a", "unit": "us", "ours": 1.0, "reference": null, "ratio": null,
            "ratio_min": null, "ratio_max": null, "aim": "ours < 2 us", "met": true,
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn names_choose_by_any_part_of_them() {
        let report = Report { json: true, names: vec!["verify".to_owned()] };
        assert!(report.wants("http/verify-cookie") && !report.wants("http/open"));
    }
}
