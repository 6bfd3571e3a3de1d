//! What routes of every kind have: addresses for probes, and a time limit for draining.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::unknown_pool;
use crate::{
    codes,
    config::BadSetting,
    error::{codes as runtime_codes, did_you_mean},
    on::Progress,
    provider::ProviderError,
    quantity::Span,
};

/// Base URLs at which probes reach a route and its pools: the settings `url` and `pool_urls`.
#[derive(Debug, Clone)]
pub struct Addresses {
    route: String,
    url: Option<String>,
    pools: BTreeMap<String, Option<String>>,
}

impl Addresses {
    /// The addresses of a route that has these pools.
    ///
    /// # Errors
    /// The address of a pool that the route does not have.
    pub fn new<'p>(
        route: &str,
        pools: impl Iterator<Item = &'p str>,
        url: Option<String>,
        mut pool_urls: BTreeMap<String, String>,
    ) -> Result<Self, BadSetting> {
        let trimmed = |url: String| url.trim_end_matches('/').to_owned();
        let pools: BTreeMap<String, Option<String>> =
            pools.map(|pool| (pool.to_owned(), pool_urls.remove(pool).map(trimmed))).collect();
        if let Some(pool) = pool_urls.keys().next() {
            let close = did_you_mean(pool, pools.keys().map(String::as_str));
            let close = close.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
            return Err(BadSetting::new("pool_urls", format!("there is no pool named \"{pool}\"{close}")));
        }
        Ok(Self { route: route.to_owned(), url: url.map(trimmed), pools })
    }

    /// The address of the route, or of one of its pools.
    ///
    /// # Errors
    /// `unknown-target` for a pool that the route does not have; `config` where no address is configured.
    pub fn of(&self, pool: Option<&str>) -> Result<String, ProviderError> {
        let route = &self.route;
        let (url, key) = match pool {
            None => (&self.url, "url".to_owned()),
            Some(pool) => {
                let url = self
                    .pools
                    .get(pool)
                    .ok_or_else(|| unknown_pool(route, pool, self.pools.keys().map(String::as_str)))?;
                (url, format!("pool_urls = {{ {pool} = \"http://…\" }}"))
            }
        };
        url.clone().ok_or_else(|| {
            let what = pool.map_or_else(|| route.clone(), |pool| format!("{pool} of {route}"));
            ProviderError::terminal(codes::CONFIG, format!("no address is configured for {what}"))
                .hint(format!("add `{key}` to the traffic target {route} in contraflow.toml"))
        })
    }
}

/// How long a route has been waiting for pools without weight to drain, and for how long it may: the setting `drain_timeout`.
#[derive(Debug, Default)]
pub struct DrainTimer {
    limit: Option<Duration>,
    since: Mutex<Option<Instant>>,
}

impl DrainTimer {
    /// A timer that ends after `limit`; without one, only the change's own time ends the wait.
    pub fn new(limit: Option<Span>) -> Self {
        Self { limit: limit.map(Duration::from), since: Mutex::default() }
    }

    /// Forgets how long was waited: new weights were set, or all is drained.
    pub fn reset(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// `drained` of `pools` pools without weight are drained; `message` says what keeps the next one busy.
    ///
    /// # Errors
    /// `not-settled`: the time is over.
    pub fn waiting(
        &self,
        route: &str,
        drained: usize,
        pools: usize,
        message: String,
    ) -> Result<Progress, ProviderError> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        match self.limit {
            Some(limit) if waited >= limit => Err(ProviderError::terminal(
                runtime_codes::NOT_SETTLED,
                format!("{message} of {route} after {}", Span(limit)),
            )),
            _ => Ok(Progress::Waiting { done: drained as u64, total: pools as u64, message }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_the_route_or_of_a_pool_and_what_is_missing_is_named() {
        let pool_urls = |pool: &str| BTreeMap::from([(pool.to_owned(), "http://green:8080/".to_owned())]);
        let pools = || ["blue", "green"].into_iter();
        let web = Addresses::new("web", pools(), Some("http://shop/".into()), pool_urls("green")).unwrap();
        assert_eq!(web.of(None).as_deref(), Ok("http://shop"));
        assert_eq!(web.of(Some("green")).as_deref(), Ok("http://green:8080"));
        let error = web.of(Some("blue")).unwrap_err();
        assert_eq!(error.message, "no address is configured for blue of web");
        assert_eq!(web.of(Some("gren")).unwrap_err().hints, ["did you mean \"green\"?"]);
        let error = Addresses::new("web", pools(), None, pool_urls("gren")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`pool_urls`: there is no pool named \"gren\", did you mean \"green\"?"
        );
    }

    #[test]
    fn draining_ends_when_its_time_is_over_and_not_without_a_limit() {
        let busy = |timer: &DrainTimer| timer.waiting("web", 0, 1, "1 connection still on blue".into());
        assert!(matches!(busy(&DrainTimer::default()), Ok(Progress::Waiting { done: 0, total: 1, .. })));
        let timer = DrainTimer::new(Some(Span::secs(0)));
        assert_eq!(busy(&timer).unwrap_err().message, "1 connection still on blue of web after 0s");
        let timer = DrainTimer::new(Some(Span::secs(3600)));
        assert!(busy(&timer).is_ok() && timer.since.lock().unwrap().is_some());
        timer.reset();
        assert!(timer.since.lock().unwrap().is_none());
    }
}
